package token

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// VerificationKey is a public key with the one algorithm that it is for.
type VerificationKey struct {
	Kid string
	Alg string
	// Key is an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
	Key crypto.PublicKey
}

// Options say what a token must be beside well signed.
type Options struct {
	// Now is the verifier's clock.
	Now time.Time
	// Leeway is granted on exp, nbf and iat.
	Leeway time.Duration
	// Issuer and Audience are what iss must be and aud must hold. Empty ones are
	// not checked; a service that takes tokens should name both (RFC 8725 §3.8, §3.9).
	Issuer   string
	Audience string
	// Typ is what typ must be, a media type with or without "application/"
	// (RFC 7515 §4.1.9). Empty takes any.
	Typ string
}

// Verified is a token that a key of the set has signed.
type Verified struct {
	Header Header
	Claims Claims
}

// Verify reads a token and checks it: the key of its kid, the algorithm that
// the key is for, the signature, then typ, iss, aud, exp, nbf and iat. A token
// without exp is refused. Each error wraps one of this package's.
func Verify(keys []VerificationKey, raw string, o Options) (*Verified, error) {
	t, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	key, err := choose(keys, t.Header)
	if err != nil {
		return nil, err
	}
	method, err := Method(key.Alg)
	if err != nil {
		return nil, err
	}
	switch err := method.Verify(t.input, t.sig, key.Key); {
	case errors.Is(err, ErrKey):
		return nil, fmt.Errorf("kid %q: %w", shorten(key.Kid), err)
	case err != nil: // why does not matter, and the reasons of the libraries confuse
		return nil, fmt.Errorf("%w: kid %q, algorithm %s", ErrSignature, shorten(key.Kid), key.Alg)
	}
	if err := t.check(o); err != nil {
		return nil, err
	}
	return &Verified{Header: t.Header, Claims: t.Claims}, nil
}

// choose picks the key by kid alone. The header's algorithm chooses nothing:
// it has to agree.
func choose(keys []VerificationKey, h Header) (VerificationKey, error) {
	var found []VerificationKey
	var kids []string
	for _, k := range keys {
		kids = append(kids, k.Kid)
		if k.Kid == h.Kid {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return VerificationKey{}, fmt.Errorf("%w: the token names %q, the set has %s", ErrUnknownKey, shorten(h.Kid), listed(kids))
	case len(found) > 1:
		return VerificationKey{}, fmt.Errorf("%w: the set has %d keys with kid %q", ErrUnknownKey, len(found), shorten(h.Kid))
	case found[0].Alg != h.Alg:
		return VerificationKey{}, fmt.Errorf("%w: the token says %s, the key %q is for %s only", ErrAlgorithm, h.Alg, shorten(h.Kid), shorten(found[0].Alg))
	}
	return found[0], nil
}

func listed(kids []string) string {
	const most = 10
	switch {
	case len(kids) == 0:
		return "no usable key"
	case len(kids) > most:
		return fmt.Sprintf("%q and %d more", kids[:most], len(kids)-most)
	}
	return fmt.Sprintf("%q", kids)
}

func (t *Unverified) check(o Options) error {
	c := &t.Claims
	switch {
	case o.Typ != "" && mediaType(t.Header.Typ) != mediaType(o.Typ):
		return fmt.Errorf("%w: it is %q, wanted %q", ErrType, shorten(t.Header.Typ), o.Typ)
	case o.Issuer != "" && c.Issuer != o.Issuer:
		return fmt.Errorf("%w: it is %q, wanted %q", ErrIssuer, shorten(c.Issuer), o.Issuer)
	case o.Audience != "" && !slices.Contains(c.Audience, o.Audience):
		return fmt.Errorf("%w: it is for %s, wanted %q", ErrAudience, listedAudience(c.Audience), o.Audience)
	case c.ExpiresAt.IsZero():
		return fmt.Errorf("%w: it has no exp", ErrMalformed)
	case !o.Now.Before(c.ExpiresAt.Add(o.Leeway)):
		return fmt.Errorf("%w: %s ago, at %s", ErrExpired, o.Now.Sub(c.ExpiresAt).Truncate(time.Second), stamp(c.ExpiresAt))
	case o.Now.Add(o.Leeway).Before(c.NotBefore):
		return fmt.Errorf("%w: nbf is %s, the clock here says %s", ErrNotYet, stamp(c.NotBefore), stamp(o.Now))
	case o.Now.Add(o.Leeway).Before(c.IssuedAt):
		return fmt.Errorf("%w: iat is %s, the clock here says %s", ErrNotYet, stamp(c.IssuedAt), stamp(o.Now))
	}
	return nil
}

func listedAudience(aud []string) string {
	if len(aud) == 0 {
		return "no audience at all"
	}
	return shorten(fmt.Sprintf("%q", aud))
}

// mediaType compares typ values as RFC 7515 §4.1.9 says: "application/" may be
// left out where no other slash follows, and case does not count (RFC 2045 §5.1).
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if short, ok := strings.CutPrefix(typ, "application/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return typ
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
