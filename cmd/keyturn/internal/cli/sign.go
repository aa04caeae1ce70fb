package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/spf13/cobra"
)

func signCommand(cfg *Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sign --profile P",
		Short: "Sign a token and print it",
		Example: `  keyturn sign --profile orders --subject user-7 --audience api://orders --ttl 5m
  keyturn sign --profile orders --subject user-7 --claims '{"tenant":"acme"}'`,
		Args: cobra.NoArgs,
	}
	request := cfg.signRequest(cmd)
	socket := cfg.signSocket(cmd)
	wait := cmd.Flags().String("wait", noWait, "how long to try again while the daemon is away, starting or busy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req, err := request()
		if err != nil {
			return err
		}
		limit, err := parseWait(*wait)
		if err != nil {
			return err
		}
		var resp api.SignResponse
		err = insist(cmd.Context(), limit, func() error {
			resp = api.SignResponse{}
			return socket().post(cmd.Context(), "/v1/sign", req, &resp)
		})
		if err != nil {
			return err
		}
		if !isToken(resp.Token) {
			return socket().noToken()
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), resp.Token)
		return err
	}
	return cmd
}

// signRequest adds the flags that say what to sign, and returns what reads them.
func (c *Config) signRequest(cmd *cobra.Command) func() (api.SignRequest, error) {
	var req api.SignRequest
	var audience []string
	var ttl, claims string
	f := cmd.Flags()
	f.StringVar(&req.Profile, "profile", "", "who may sign what; required")
	f.StringVar(&req.Subject, "subject", "", "the token's sub, where the profile lets you choose it")
	f.StringArrayVar(&audience, "audience", nil, "the token's aud; may be repeated (default the profile's only audience)")
	f.StringVar(&ttl, "ttl", "", "how long it lives, such as 5m (default the profile's)")
	f.StringVar(&claims, "claims", "", "claims to add: a JSON object, @FILE, or - for standard input")
	return func() (api.SignRequest, error) {
		if req.Profile == "" {
			return req, usagef("--profile is missing: name the profile to sign with")
		}
		req.Audience = audience
		if err := setTTL(&req, ttl); err != nil {
			return req, err
		}
		if claims == "" {
			return req, nil
		}
		doc, err := c.argument(claims, api.MaxSignBytes)
		if err != nil {
			return req, fmt.Errorf("--claims: %w", err)
		}
		if err := strictjson.Unmarshal(doc, &req.Claims); err != nil || req.Claims == nil {
			return req, usagef("--claims is not a JSON object: %w", orNotObject(err))
		}
		return req, nil
	}
}

func setTTL(req *api.SignRequest, ttl string) error {
	if ttl == "" {
		return nil
	}
	d, err := configs.ParseDuration(ttl)
	switch {
	case err != nil:
		return usagef("--ttl: %w", err)
	case time.Duration(d)%time.Second != 0:
		return usagef("--ttl: %s is not in whole seconds", ttl)
	}
	seconds := int64(time.Duration(d) / time.Second)
	req.TTLSeconds = &seconds
	return nil
}

func orNotObject(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf(`write {"name": value}`)
}

// argument is a value as it stands, or what is in @FILE or, for -, comes over
// standard input.
func (c *Config) argument(value string, most int64) ([]byte, error) {
	in := c.Stdin
	switch file, isFile := strings.CutPrefix(value, "@"); {
	case isFile:
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	case value != "-":
		return []byte(value), nil
	}
	doc, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(doc)) > most:
		return nil, fmt.Errorf("more than %d bytes", most)
	}
	return doc, nil
}
