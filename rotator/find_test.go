package rotator

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// TestFindOfAKeyThatTwoIssuersAdopted: always the first that still trusts it,
// so that an order that is repeated reaches the second.
func TestFindOfAKeyThatTwoIssuersAdopted(t *testing.T) {
	adopted := func(revoked time.Time) *keyring.Snapshot {
		return &keyring.Snapshot{Adopted: []keyring.Adopted{{JWK: keyring.JWK{Kid: "theirs"}, Revoked: revoked}}}
	}
	trusts, revoked := adopted(time.Time{}), adopted(time.Unix(1, 0))
	for _, tc := range []struct {
		a, b *keyring.Snapshot
		want string
	}{{trusts, trusts, "a"}, {revoked, trusts, "b"}, {revoked, revoked, "a"}} {
		r := &Rotator{loops: map[string]*loop{
			"a": {file: keyring.Config{Name: "a"}, snapshot: tc.a}, "b": {file: keyring.Config{Name: "b"}, snapshot: tc.b},
		}}
		for range 20 {
			l, err := r.find(keyring.Command{Revoke: []string{"theirs"}})
			if err != nil || l.file.Name != tc.want {
				t.Fatalf("found %v, %v, want %s", l, err, tc.want)
			}
		}
	}
}
