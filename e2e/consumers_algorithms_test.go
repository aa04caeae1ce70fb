package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/keyturn/keyturn/api"
)

// skew is E of the site with every algorithm: consumers' clocks may be off by
// that much.
const skew = 10 * time.Second

// algorithms lists a ring for each algorithm, the moduli of RSA included.
func algorithms() []string {
	return []string{
		"RS256, rsa_bits: 2048", "RS384, rsa_bits: 3072", "RS512, rsa_bits: 4096",
		"PS256, rsa_bits: 2048", "PS384, rsa_bits: 2048", "PS512, rsa_bits: 2048",
		"ES256", "ES384", "ES512", "EdDSA",
	}
}

func ringName(algorithm string) string {
	name, _, _ := strings.Cut(algorithm, ",")
	return strings.ToLower(name)
}

// everyAlgorithm is a site with a ring and a profile for each algorithm.
func everyAlgorithm(t *testing.T) *site {
	s := newSite(t).edit("clock_skew: 1s", "clock_skew: "+skew.String()).edit("outage_budget: 4s", "outage_budget: 5m").
		edit("consumer_cache: 2s", "consumer_cache: 1m").edit("leeway: 1s", "leeway: 1m")
	head, _, _ := strings.Cut(s.text, "rings:\n")
	var rings, profiles strings.Builder
	for _, a := range algorithms() {
		fmt.Fprintf(&rings, "  - {name: %s, issuer: main, algorithm: %s, rotate: \"0 * * * *\", max_token_ttl: 5m}\n", ringName(a), a)
		fmt.Fprintf(&profiles, "  - {name: %s, ring: %s, allow: [{socket: default}], subject: {pattern: \".+\"}, audiences: [\"*\"], claims: {allow: [\"*\"]}}\n", ringName(a), ringName(a))
	}
	s.text = head + "rings:\n" + rings.String() + "profiles:\n" + profiles.String() + "audit: {file: audit.jsonl}\n"
	return s
}

// tokenOfEach signs with every ring and checks who signed what.
func tokenOfEach(t *testing.T, d *daemon, ttl int64) (tokens, kids []string) {
	t.Helper()
	for _, a := range algorithms() {
		req := ask(ringName(a))
		req.TTLSeconds = &ttl
		tok, err := d.token(req)
		must(t, err)
		if alg := segment(tok.Token, 0)["alg"]; !strings.EqualFold(fmt.Sprint(alg), ringName(a)) {
			t.Fatalf("the token of ring %s has alg %v", ringName(a), alg)
		}
		tokens, kids = append(tokens, tok.Token), append(kids, tok.Kid)
	}
	return tokens, kids
}

// TestEveryAlgorithm: what services verify with takes the tokens of every
// algorithm, also where its clock is E behind or ahead, and refuses what is
// not a good token for it.
func TestEveryAlgorithm(t *testing.T) {
	t.Parallel()
	s := everyAlgorithm(t)
	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	for _, a := range algorithms() {
		d.canSign(2*time.Minute, ringName(a))
	}
	set := keySet{url: d.jwksURL(), issuer: "http://" + d.public, audience: "demo"}
	short, _ := tokenOfEach(t, d, 1)
	tokens, kids := tokenOfEach(t, d, 300)
	time.Sleep(1100 * time.Millisecond) // the short ones expire
	for _, c := range consumers() {
		t.Run(c.name, func(t *testing.T) {
			for _, offset := range []time.Duration{0, -skew, skew} {
				fresh, _ := tokenOfEach(t, d, 300) // the younger, the harder for a clock that is behind
				at := set
				at.offset = offset
				got, err := c.judge(at, append(slices.Clone(tokens), fresh...))
				must(t, err)
				good, err := allGood(got)
				if want := append(slices.Clone(kids), kids...); err != nil || !slices.Equal(good, want) {
					t.Errorf("clock off by %s: %v, kids %v, want %v", offset, err, good, want)
				}
			}
			refusesBad(t, c, set, tokens, short)
		})
	}
	t.Run("discovery", func(t *testing.T) { discovers(t, set.issuer, tokens) })
}

// refusesBad shows that the consumer can say no, and why.
func refusesBad(t *testing.T, c consumer, set keySet, tokens, short []string) {
	t.Helper()
	for name, bad := range map[string]struct {
		set    keySet
		tokens []string
		why    map[string]string // by consumer
	}{
		"tampered claims": {set, mapped(tokens, tamper), map[string]string{
			"npm jose": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED", "PyJWT": "InvalidSignatureError", "go-oidc": "failed to verify signature"}},
		"wrong audience": {keySet{url: set.url, issuer: set.issuer, audience: "somebody"}, tokens, map[string]string{
			"npm jose": `unexpected "aud"`, "PyJWT": "InvalidAudienceError", "go-oidc": "expected audience"}},
		"wrong issuer": {keySet{url: set.url, issuer: set.issuer + "/", audience: set.audience}, tokens, map[string]string{
			"npm jose": `unexpected "iss"`, "PyJWT": "InvalidIssuerError", "go-oidc": "different provider"}},
		"expired": {set, short, map[string]string{
			"npm jose": "ERR_JWT_EXPIRED", "PyJWT": "ExpiredSignatureError", "go-oidc": "token is expired"}},
	} {
		got, err := c.judge(bad.set, bad.tokens)
		must(t, err)
		for i, line := range got {
			if !strings.HasPrefix(line, "bad ") || !strings.Contains(line, bad.why[c.name]) {
				t.Errorf("%s, %s: %q, want it refused with %q", name, algorithms()[i], line, bad.why[c.name])
			}
		}
	}
}

func mapped(list []string, f func(string) string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}

// tamper makes another subject of a token's, under the signature that it had.
func tamper(token string) string {
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(claims), `"alice"`) {
		return "not a token of alice: " + token
	}
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"alice"`, `"admin"`, 1)))
	return strings.Join(parts, ".")
}

// discovers lets go-oidc find all that it needs from the issuer's URL alone
// (OIDC Discovery §4).
func discovers(t *testing.T, issuer string, tokens []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, issuer)
	must(t, err)
	verifier := provider.Verifier(&oidc.Config{ClientID: "demo"})
	for i, token := range tokens {
		id, err := verifier.Verify(ctx, token)
		if err != nil {
			t.Errorf("%s: %v", algorithms()[i], err)
		} else if id.Subject != "alice" || id.Issuer != issuer {
			t.Errorf("%s: subject %q, issuer %q", algorithms()[i], id.Subject, id.Issuer)
		}
	}
	var doc struct {
		JWKS       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	must(t, provider.Claims(&doc))
	if doc.JWKS != issuer+"/.well-known/jwks.json" || len(doc.Algorithms) != len(algorithms()) {
		t.Errorf("discovery document %+v", doc)
	}
}

// TestFreshToken: the times of a token are such that a consumer whose clock is
// E behind takes it at once, and are written by the daemon alone.
func TestFreshToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	before := time.Now().Unix()
	ttl := int64(7)
	tok, err := d.token(api.SignRequest{Profile: "web", Subject: "alice", Audience: api.Audience{"a", "b"}, TTLSeconds: &ttl})
	must(t, err)
	after := time.Now().Unix()
	claims := claimsOf(tok.Token)
	const e = 1 // clock_skew of the site, in seconds
	for name, from := range map[string]int64{"iat": -e, "nbf": -e, "exp": ttl} {
		if at := int64(claims[name].(float64)); at < before+from || at > after+from {
			t.Errorf("%s is %d, want %d to %d", name, at, before+from, after+from)
		}
	}
	if aud := fmt.Sprint(claims["aud"]); aud != "[a b]" || claims["jti"] == "" || claims["iss"] != "http://"+d.public {
		t.Errorf("claims %v", claims)
	}
	if tok.ExpiresIn != ttl || tok.ExpiresAt.Unix() != int64(claims["exp"].(float64)) || segment(tok.Token, 0)["typ"] != "JWT" {
		t.Errorf("answer %+v, header %v", tok, segment(tok.Token, 0))
	}
}
