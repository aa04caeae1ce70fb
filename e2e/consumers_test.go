package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// consumer judges tokens by the set at a URL, with the clock of the consumer's
// machine off by some seconds: "ok KID ALG" or "bad REASON" for each. The CA
// file, if there is one, is the authority that it trusts.
type consumer struct {
	name  string
	judge func(set keySet, tokens []string) ([]string, error)
}

// keySet is where a consumer finds keys, and what it asks of tokens.
type keySet struct {
	url, issuer, audience string
	offset                time.Duration
	caFile                string
}

// verify wants every token to be good, and returns the kid of each.
func (c consumer) verify(_ *testing.T, jwks, issuer, audience string, offset time.Duration, tokens []string) ([]string, error) {
	lines, err := c.judge(keySet{url: jwks, issuer: issuer, audience: audience, offset: offset}, tokens)
	if err != nil {
		return nil, err
	}
	return allGood(lines)
}

func allGood(lines []string) ([]string, error) {
	var kids []string
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "ok" {
			return nil, fmt.Errorf("token %d: %s", i+1, line)
		}
		kids = append(kids, fields[1])
	}
	return kids, nil
}

func consumers() []consumer {
	return []consumer{
		{"npm jose", script("NODE_EXTRA_CA_CERTS", "node", "consumers/npm/jose.mjs")},
		{"PyJWT", script("SSL_CERT_FILE", "/usr/bin/python3", "consumers/pyjwt.py")},
		{"go-oidc", judgeInGo},
	}
}

// script feeds tokens to a program; caEnv names the variable by which it is
// told whom to trust.
func script(caEnv string, command ...string) func(keySet, []string) ([]string, error) {
	return func(set keySet, tokens []string) ([]string, error) {
		args := append(slices.Clone(command[1:]), set.url, set.issuer, set.audience, fmt.Sprint(int(set.offset/time.Second)))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, command[0], args...)
		if set.caFile != "" {
			cmd.Env = append(os.Environ(), caEnv+"="+set.caFile)
		}
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(tokens, "\n")+"\n"), &out, &errs
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, errs.String())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(tokens) {
			return nil, fmt.Errorf("%d answers for %d tokens: %s", len(lines), len(tokens), errs.String())
		}
		return lines, nil
	}
}

// judgeInGo is coreos/go-oidc as Kubernetes and Vault use it.
func judgeInGo(set keySet, tokens []string) ([]string, error) {
	ctx := context.Background()
	if set.caFile != "" {
		client, err := trusting(set.caFile)
		if err != nil {
			return nil, err
		}
		ctx = oidc.ClientContext(ctx, client)
	}
	verifier := oidc.NewVerifier(set.issuer, oidc.NewRemoteKeySet(ctx, set.url), &oidc.Config{
		ClientID:             set.audience,
		Now:                  func() time.Time { return time.Now().Add(set.offset) },
		SupportedSigningAlgs: []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
	})
	var lines []string
	for _, token := range tokens {
		if _, err := verifier.Verify(ctx, token); err != nil {
			lines = append(lines, "bad "+err.Error())
			continue
		}
		lines = append(lines, fmt.Sprint("ok ", segment(token, 0)["kid"], " ", segment(token, 0)["alg"]))
	}
	return lines, nil
}

// trusting is a client that trusts one authority.
func trusting(caFile string) (*http.Client, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}

func goOIDC(_ *testing.T, jwks, issuer, audience string, offset time.Duration, tokens []string) ([]string, error) {
	return consumer{judge: judgeInGo}.verify(nil, jwks, issuer, audience, offset, tokens)
}
