package token

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyturn/keyturn/internal/strictjson"
)

// Header is what keyturn writes into, and reads from, the JOSE header
// (RFC 7515 §4). Members are declared in the order in which they are written.
type Header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ,omitempty"`
}

// Signer signs tokens with one key. It is safe for use by many goroutines if
// its crypto.Signer is.
type Signer struct {
	alg, kid string
	method   jwt.SigningMethod
	key      crypto.Signer
}

// NewSigner is the signer of a key under its kid. It refuses a key that the
// algorithm cannot use.
func NewSigner(alg, kid string, key crypto.Signer) (*Signer, error) {
	method, err := Method(alg)
	if err != nil {
		return nil, err
	}
	if kid == "" {
		return nil, errors.New("a signer needs a kid: without it nobody finds the key")
	}
	if _, err := signerFor(alg, key); err != nil {
		return nil, fmt.Errorf("kid %q: %w", kid, err)
	}
	return &Signer{alg: alg, kid: kid, method: method, key: key}, nil
}

// redacted stands for a Signer wherever it is printed: fmt would look into its
// fields, and a key there may show its private half.
const redacted = "[redacted]"

// Format implements fmt.Formatter.
func (Signer) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// LogValue implements slog.LogValuer.
func (Signer) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Signer) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// Kid names the key.
func (s *Signer) Kid() string { return s.kid }

// Alg is the key's algorithm.
func (s *Signer) Alg() string { return s.alg }

// Sign makes a token of the claims, a JSON object, which go into it byte by
// byte. The caller made the object and answers for it: it is not parsed again.
func (s *Signer) Sign(typ string, claims []byte) (string, error) {
	header, err := json.Marshal(Header{Alg: s.alg, Kid: s.kid, Typ: typ})
	if err != nil {
		return "", fmt.Errorf("encode header: %w", err)
	}
	enc := base64.RawURLEncoding
	size := enc.EncodedLen(len(header)) + 1 + enc.EncodedLen(len(claims))
	out := make([]byte, 0, size+1+enc.EncodedLen(maxRSABits/8))
	out = append(enc.AppendEncode(out, header), '.')
	out = enc.AppendEncode(out, claims)
	sig, err := s.method.Sign(string(out), s.key)
	if err != nil {
		return "", fmt.Errorf("sign with kid %q: %w", s.kid, err)
	}
	return string(enc.AppendEncode(append(out, '.'), sig)), nil
}

// Build makes one token. Unlike Signer.Sign it refuses claims that are not
// one JSON object with unique names.
func Build(h Header, claims []byte, key crypto.Signer) (string, error) {
	var object map[string]json.RawMessage
	if err := strictjson.Unmarshal(claims, &object); err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	if object == nil {
		return "", errors.New("claims: null is not an object")
	}
	s, err := NewSigner(h.Alg, h.Kid, key)
	if err != nil {
		return "", err
	}
	return s.Sign(h.Typ, claims)
}
