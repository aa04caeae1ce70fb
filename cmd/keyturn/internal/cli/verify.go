package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/token"
	"github.com/spf13/cobra"
)

func verifyCommand(cfg *Config) *cobra.Command {
	var jwks string
	var o token.Options
	cmd := &cobra.Command{
		Use:   "verify --jwks FILE|URL TOKEN|-",
		Short: "Verify a token against a key set and print its claims",
		Long: `Verify a token as a consumer does: the key of its kid, the algorithm that this
key is for, the signature, the times, and issuer and audience where they are
named. The claims go to standard output.`,
		Example: `  keyturn verify --jwks https://tokens.example.com/.well-known/jwks.json --issuer https://tokens.example.com --audience api://orders "$TOKEN"`,
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&jwks, "jwks", "", "the key set, a file or an https:// URL (http:// on this machine); required")
	f.StringVar(&o.Issuer, "issuer", "", "what iss must be (default anything)")
	f.StringVar(&o.Audience, "audience", "", "what aud must contain (default anything)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if jwks == "" {
			return usagef("--jwks is missing: name the key set's file or URL")
		}
		raw := args[0]
		if raw == "-" {
			doc, err := cfg.argument("-", token.MaxBytes)
			if err != nil {
				return fmt.Errorf("standard input: %w", err)
			}
			raw = string(doc)
		}
		doc, err := readSet(cmd.Context(), jwks)
		if err != nil {
			return err
		}
		keys, err := token.ParseSet(doc)
		if err != nil {
			return fmt.Errorf("%s: %w", jwks, err)
		}
		o.Now = time.Now()
		v, err := token.Verify(keys, strings.TrimSpace(raw), o)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "valid: signed with %s (%s), expires in %s\n", oneWord(v.Header.Kid), v.Header.Alg, rough(v.Claims.ExpiresAt.Sub(o.Now)))
		var out bytes.Buffer
		if err := json.Indent(&out, v.Claims.Raw, "", "  "); err != nil {
			return fmt.Errorf("claims: %w", err)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), printing(out.String()))
		return err
	}
	return cmd
}

// readSet reads a key set from a file or fetches it as a strict consumer does:
// over https or from this machine, without redirects, 200 only.
func readSet(ctx context.Context, where string) ([]byte, error) {
	if !strings.Contains(where, "://") {
		f, err := os.Open(where)
		if err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		defer f.Close()
		return bounded(f, where)
	}
	u, err := url.Parse(where)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usagef("--jwks is neither a file nor an https:// URL")
	}
	address := where
	where = u.Redacted() // errors are kept in logs
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, usagef("%s: plain http could be changed on its way, and with it whom you trust: use https", where)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, unreachablef("%s cannot be fetched: %w", where, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests:
		return nil, unreachablef("%s answered %s: retry", where, plainText(resp.Status))
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s: a key set is 200, without redirects", where, plainText(resp.Status))
	}
	return bounded(resp.Body, where)
}

func bounded(r io.Reader, where string) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(r, token.MaxSetBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("key set: %w", err)
	case len(doc) > token.MaxSetBytes:
		return nil, fmt.Errorf("%s is longer than %d bytes", where, token.MaxSetBytes)
	}
	return doc, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}
