package keyring

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// View is a kind of consumer, by what it can read. One unknown key type makes
// some consumers refuse the whole set.
type View string

// The views.
const (
	ViewAll        View = ""           // every key
	ViewKubernetes View = "kubernetes" // kube-apiserver refuses a set with an OKP key
	ViewSPIFFE     View = "spiffe"     // JWT-SVID allows no EdDSA
)

// Check reports an unknown view.
func (v View) Check() error {
	switch v {
	case ViewAll, ViewKubernetes, ViewSPIFFE:
		return nil
	}
	return fmt.Errorf("view %q: use %q or %q, or leave it out for every key", string(v), ViewKubernetes, ViewSPIFFE)
}

// Shows reports whether keys of the algorithm are in the view.
func (v View) Shows(a Algorithm) bool {
	return v == ViewAll || a != EdDSA
}

// Published is a rendered key set.
type Published struct {
	// Body is the JWKS document (RFC 7517 §5), byte-stable for the same keys.
	Body []byte
	// Kids are those in Body, sorted.
	Kids []string
	// Changes is when a key leaves the set next by age; zero for never.
	Changes time.Time
}

// Set renders the public key set of a snapshot at an instant, for a view.
// Consumers of a set see keys sorted by kid.
func Set(s *Snapshot, now time.Time, view View) (Published, error) {
	var out Published
	set := JWKSet{Keys: []JWK{}}
	add := func(k JWK, until time.Time) {
		if !view.Shows(k.Alg) {
			return
		}
		set.Keys = append(set.Keys, k)
		out.Kids = append(out.Kids, k.Kid)
		if !until.IsZero() && (out.Changes.IsZero() || until.Before(out.Changes)) {
			out.Changes = until
		}
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		if !k.InSet(now) {
			continue
		}
		var until time.Time
		if !k.Closed.IsZero() {
			until = k.WithdrawAt()
		}
		add(k.JWK, until)
	}
	for _, a := range s.Adopted {
		if now.Before(a.Until) && a.Revoked.IsZero() && s.Key(a.JWK.Kid) == nil {
			add(a.JWK, a.Until)
		}
	}
	slices.SortFunc(set.Keys, func(a, b JWK) int { return strings.Compare(a.Kid, b.Kid) })
	slices.Sort(out.Kids)
	body, err := json.Marshal(set)
	if err != nil {
		return Published{}, fmt.Errorf("render key set: %w", err)
	}
	out.Body = append(body, '\n')
	return out, nil
}

// Servable reports whether a snapshot has a set that consumers may see: an
// issuer that is being born has none, and an empty set is never published.
func (s *Snapshot) Servable() bool { return len(s.Keys)+len(s.Adopted) > 0 }
