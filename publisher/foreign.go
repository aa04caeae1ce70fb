package publisher

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/keyring"
)

// isForeign reports a target that holds a set which this issuer did not write,
// or not under this lineage.
func (v *visit) isForeign() bool {
	h := &v.held
	if h.side == nil {
		return h.exists
	}
	return h.side.Lineage != v.snapshot.Lineage || h.side.Issuer != v.issuer
}

// takeOver reports whether a foreign set may be replaced now: where adopt_until
// says that keyturn takes it over, and the snapshot to publish names every key
// of it. What it does not name yet is reported, for the manifest to adopt.
//
// A crash right after the replacement leaves our side file and our set, and one
// before its last step the foreign set with a side file that does not list it: a
// file that drifted, and all that it held is in the set that repairs it.
func (v *visit) takeOver() bool {
	h := &v.held
	v.report.drifted = false
	if v.adoptUntil.IsZero() {
		v.fail(CodePublishRefused, v.required, v.refusal("its keys would vanish for consumers that need them; take them over with adopt_until"))
		return false
	}
	if v.last != nil { // a set is taken over once; who changes the side file of ours does not get his keys into it
		v.fail(CodePublishRefused, v.required, v.refusal("it was this issuer's a moment ago, and is not taken over again"))
		return false
	}
	keys, err := v.foreignKeys()
	if err != nil {
		v.fail(CodePublishRefused, v.required, fmt.Errorf("%s cannot be taken over: %w", v.path, err))
		return false
	}
	pending, err := v.unnamed(keys)
	if err != nil {
		v.fail(CodePublishRefused, v.required, fmt.Errorf("%s cannot be taken over: %w", v.path, err))
		return false
	}
	if len(pending) == 0 {
		h.side, h.set = nil, nil // nothing of ours is held here
		return true
	}
	if !v.clock.Early.Before(v.adoptUntil) {
		v.fail(CodePublishRefused, v.required, v.refusal(fmt.Sprintf(
			"adopt_until has passed (%s), so its keys %s are not taken over any more; set a later date", stamp(v.adoptUntil), strings.Join(pending, ", "))))
		return false
	}
	v.report.foreign = keys
	v.fail(CodeNotPublished, v.required, fmt.Errorf(
		"%s holds keys of somebody else, and is taken over when the manifest names %s: that takes a daemon with the roles rotator and publisher on this host, and a moment",
		v.path, strings.Join(pending, ", ")))
	return false
}

// refusal says whose set is there and how to mend it.
func (v *visit) refusal(why string) error {
	h := &v.held
	if h.side == nil {
		return fmt.Errorf("%s was not written by keyturn (it has no side file %s): %s, or name another file; where nobody needs its keys any more, remove it",
			v.path, v.name+sideSuffix, why)
	}
	return fmt.Errorf("%s belongs to issuer %q, lineage %s, and this is issuer %q, lineage %s: %s, or name another file; where nobody needs its keys any more, remove it and %s",
		v.path, h.side.Issuer, h.side.Lineage, v.issuer, v.snapshot.Lineage, why, v.name+sideSuffix)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// foreignKeys are those of the set that stands there, as this target would
// publish them: all of them, or an error.
func (v *visit) foreignKeys() ([]keyring.JWK, error) {
	if !v.held.exists {
		return []keyring.JWK{}, nil
	}
	keys, err := parseForeign(v.held.body)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if !v.view.Shows(k.Alg) {
			return nil, fmt.Errorf("the view %q leaves out key %s (%s), which its consumers have now: use another view, or take the key out of the file", v.view, called(k.Kid), k.Alg)
		}
	}
	return keys, nil
}

// unnamed are the kids that the snapshot does not name. One that it names with
// another key can never be carried.
func (v *visit) unnamed(keys []keyring.JWK) ([]string, error) {
	ours := map[string]keyring.JWK{}
	for _, a := range v.snapshot.Adopted {
		ours[a.JWK.Kid] = a.JWK
	}
	for i := range v.snapshot.Keys {
		ours[v.snapshot.Keys[i].JWK.Kid] = v.snapshot.Keys[i].JWK
	}
	var pending []string
	for _, k := range keys {
		switch named, ok := ours[k.Kid]; {
		case !ok:
			pending = append(pending, called(k.Kid))
		case named != k:
			return nil, fmt.Errorf("the manifest has another key of the kid %s, and consumers would take one for the other: give the one in the file another kid, or take it out", called(k.Kid))
		}
	}
	set, err := keyring.Set(v.snapshot, v.clock.Early, keyring.ViewAll)
	if err != nil {
		return nil, err
	}
	if most := v.snapshot.Config.MaxKeys; most > 0 && len(pending) > 0 && len(set.Kids)+len(pending) > most {
		return nil, fmt.Errorf("with its keys the set would hold %d, and max_keys is %d: take out of the file what nobody needs", len(set.Kids)+len(pending), most)
	}
	return pending, nil
}

// foreignKey is a JWK as somebody else wrote it (RFC 7517 §4, RFC 7518 §6).
type foreignKey struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	Crv    string   `json:"crv"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	N      string   `json:"n"`
	E      string   `json:"e"`

	// Private members. Their values go nowhere.
	D   any `json:"d"`
	P   any `json:"p"`
	Q   any `json:"q"`
	DP  any `json:"dp"`
	DQ  any `json:"dq"`
	QI  any `json:"qi"`
	Oth any `json:"oth"`
	K   any `json:"k"`
}

// parseForeign reads a set that keyturn did not write and returns its keys as
// keyturn would publish them. What a public JWK of ours cannot hold and no
// verifier needs (x5c and the like) is left out; all keys that cannot be carried
// are told at once.
func parseForeign(doc []byte) ([]keyring.JWK, error) {
	var set struct {
		Keys *[]foreignKey `json:"keys"`
	}
	if err := strictjson.UnmarshalOpen(doc, &set); err != nil {
		return nil, fmt.Errorf("it is no key set: %w; where nobody needs it, remove it", err)
	}
	if set.Keys == nil {
		return nil, errors.New(`it is no key set: it has no member "keys"; where nobody needs it, remove it`)
	}
	keys := []keyring.JWK{}
	var errs []error
	for i, f := range *set.Keys {
		k, err := f.carry()
		name := "key " + called(f.Kid)
		if f.Kid == "" {
			name = fmt.Sprintf("the key at place %d", i+1)
		}
		same := slices.IndexFunc(keys, func(o keyring.JWK) bool { return o.Kid == f.Kid })
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s %w", name, err))
		case same < 0:
			keys = append(keys, k)
		case keys[same] != k:
			errs = append(errs, fmt.Errorf("%s stands there twice, as different keys: give one of them another kid", name))
		}
	}
	if len(errs) > 0 {
		return nil, inOneLine(errs)
	}
	return keys, nil
}

func inOneLine(errs []error) error {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// carry is the key as keyturn publishes it. A consumer that verified with the
// one in the file verifies with this one.
func (f *foreignKey) carry() (keyring.JWK, error) {
	if held := f.private(); len(held) > 0 {
		return keyring.JWK{}, fmt.Errorf("holds its private half (%s), and whoever could read the file can sign with it: take the key out, and trust its tokens no more", strings.Join(held, ", "))
	}
	switch {
	case f.Kty != "EC" && f.Kty != "RSA" && f.Kty != "OKP":
		return keyring.JWK{}, fmt.Errorf("is of kty %q: keyturn carries EC, RSA and OKP; take the key out", clip(f.Kty))
	case f.Kid == "":
		return keyring.JWK{}, errors.New("has no kid: give it one in the file, for a set that changes is read by kid")
	case len(f.Kid) > maxKid || strings.ContainsFunc(f.Kid, unicode.IsControl):
		return keyring.JWK{}, fmt.Errorf("has a kid that is longer than %d bytes or not printable: give it another one in the file", maxKid)
	case f.Use != "" && f.Use != "sig", f.KeyOps != nil && !slices.Contains(f.KeyOps, "verify"):
		return keyring.JWK{}, errors.New("is not for signatures, by its use or key_ops: move it to a set of its own")
	}
	alg := keyring.Algorithm(f.Alg)
	if alg == "" {
		alg = algorithmOf(f.Crv)
	}
	switch {
	case alg == "" && f.Kty == "RSA":
		return keyring.JWK{}, errors.New(`has no alg, and an RSA key goes with six: write "alg": "RS256" beside it in the file, or what its tokens say`)
	case alg == "":
		return keyring.JWK{}, fmt.Errorf("is on curve %q: keyturn carries P-256, P-384, P-521 and Ed25519; take the key out", clip(f.Crv))
	case !slices.Contains(keyring.Algorithms(), alg):
		return keyring.JWK{}, fmt.Errorf("has alg %q: keyturn carries %v; take the key out", clip(f.Alg), keyring.Algorithms())
	}
	k := keyring.JWK{Kty: f.Kty, Use: "sig", Alg: alg, Kid: f.Kid, Crv: f.Crv, X: f.X, Y: f.Y, N: f.N, E: f.E}
	proof := k
	proof.Kid = k.Thumbprint() // the only kid that keyring takes for its own
	if _, err := proof.PublicKey(); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without that kid
		}
		return keyring.JWK{}, fmt.Errorf("cannot be read (%w): take it out of the file", err)
	}
	return k, nil
}

// private names the private members that are there.
func (f *foreignKey) private() []string {
	var held []string
	for _, m := range []struct {
		name  string
		value any
	}{{"d", f.D}, {"p", f.P}, {"q", f.Q}, {"dp", f.DP}, {"dq", f.DQ}, {"qi", f.QI}, {"oth", f.Oth}, {"k", f.K}} {
		if m.value != nil {
			held = append(held, m.name)
		}
	}
	return held
}

// algorithmOf is the one algorithm that a curve's keys sign with.
func algorithmOf(crv string) keyring.Algorithm {
	i := slices.IndexFunc(keyring.Algorithms(), func(a keyring.Algorithm) bool { return crv != "" && a.Curve() == crv })
	if i < 0 {
		return ""
	}
	return keyring.Algorithms()[i]
}

// maxKid bounds a kid that others chose: it goes into the manifest, logs and
// answers.
const maxKid = 256

// called is a kid in a message.
func called(kid string) string { return fmt.Sprintf("%q", clip(kid)) }

// clip bounds what came from a file before it is repeated.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return strings.ToValidUTF8(s[:80], "") + "…"
}
