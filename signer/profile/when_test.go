package profile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/signer/request"
)

func TestWhenIsChecked(t *testing.T) {
	for when, want := range map[string]string{
		"claims.tennant == 'x'":                   "when: column 7: claims.tennant: no token of this profile carries it; name it in claims.allow or claims.add",
		"claims.Tenant == 'x'":                    "claims.Tenant: no token of this profile carries it",
		"claims.ENV == 'x'":                       "claims.ENV: no token of this profile carries it",
		"claims.sub == 'x'":                       "claims.sub: keyturn writes it; write request.subject",
		"claims.aud == 'x'":                       "claims.aud: keyturn writes it; write request.audience",
		"claims.exp > 5":                          "claims.exp: keyturn writes it, after the condition was asked",
		"peer.pid == 1":                           "when: column 5: there is no peer.pid",
		"claims.tenant":                           "when: it gives dyn, and has to give true or false",
		"claims.env == 'x' && claims.tenant == 1": "",
	} {
		p := anybody("orders", "web")
		p.When, p.Claims = when, Claims{Allow: []string{"tenant"}, Add: []request.Claim{{Name: "env", Value: json.RawMessage(`1`)}}}
		var said []string
		for _, err := range Check(p, known) {
			said = append(said, err.Error())
		}
		if want == "" && len(said) > 0 || want != "" && (len(said) != 1 || !strings.Contains(said[0], want)) {
			t.Errorf("%s: %q, want %q", when, said, want)
		}
	}
	anything := anybody("orders", "web") // claims.allow: ["*"]
	anything.When = "claims.whatever == 1"
	if errs := Check(anything, known); len(errs) > 0 {
		t.Error(errs)
	}
	anything.When = "peer.uidd == 1 || request.ttl == 5"
	if errs := Check(anything, known); len(errs) != 2 || !strings.HasPrefix(errs[1].Error(), "when: ") {
		t.Errorf("two faults: %v", errs)
	}
}

// A socket's name that is written out is one that there is.
func TestWhenNamesSockets(t *testing.T) {
	sockets := Known{Rings: known.Rings, Sockets: []string{"default", "ops"}}
	const none = `when: column %d: peer.socket: there is no sign socket "typo": listen.sign has "default", "ops"`
	for when, columns := range map[string][]int{
		"peer.socket == 'typo'":                              {16},
		"'typo' == peer.socket || peer.uid == 1":             {1},
		"peer.uid == 1 && !(peer.socket != 'typo')":          {35},
		"peer.socket in ['default', 'typo']":                 {28},
		"['x'].exists(x, x == 'x' && peer.socket == 'typo')": {44},
		"peer.socket == 'typo' || 'typo' == peer.socket":     {16, 26},
		"peer.socket == 'ops' || peer.socket in ['default']": nil,
		"peer.socket.startsWith('typo')":                     nil, // said on purpose
		"request.subject == 'typo' || 'typo' in ['typo']":    nil,
		"peer.socket == request.subject":                     nil,
		"peer.socket in claims.typo || peer.socket in []":    nil,
	} {
		p := anybody("orders", "web")
		p.When = when
		var got, want []string
		for _, err := range Check(p, sockets) {
			got = append(got, err.Error())
		}
		for _, c := range columns {
			want = append(want, fmt.Sprintf(none, c))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", when, got, want)
		}
		if errs := Check(p, known); len(errs) > 0 {
			t.Errorf("%s, where the sockets are not known: %v", when, errs)
		}
	}
}

func TestRateIsChecked(t *testing.T) {
	for _, tc := range []struct {
		rate Rate
		ok   bool
	}{{Rate{}, true}, {Rate{5, 0}, true}, {Rate{5, 1}, true}, {Rate{-1, 0}, false}, {Rate{0, 5}, false}, {Rate{5, -1}, false}} {
		p := anybody("orders", "web")
		p.Rate = tc.rate
		if errs := Check(p, known); (len(errs) == 0) != tc.ok {
			t.Errorf("%+v: %v", tc.rate, errs)
		}
	}
}
