package token

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

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
	method   signing
	key      crypto.Signer
	// headers holds the encoded header for each typ that was asked for: a
	// handful, since they come from a configuration.
	headers *sync.Map
	// width is how many octets a signature may have: a hint for memory.
	width int
}

// NewSigner is the signer of a key under its kid. It refuses a key that the
// algorithm cannot use.
func NewSigner(alg, kid string, key crypto.Signer) (*Signer, error) {
	method, err := methodOf(alg)
	if err != nil {
		return nil, err
	}
	if kid == "" {
		return nil, errors.New("a signer needs a kid: without it nobody finds the key")
	}
	if _, err := signerFor(alg, key); err != nil {
		return nil, fmt.Errorf("kid %q: %w", kid, err)
	}
	width := 132 // ES512
	if pub, ok := key.Public().(*rsa.PublicKey); ok {
		width = pub.Size()
	}
	return &Signer{alg: alg, kid: kid, method: method, key: key, headers: new(sync.Map), width: width}, nil
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
	token, err := s.AppendSigned(nil, typ, claims)
	return string(token), err
}

// AppendSigned is Sign for callers that have memory for the token: it is
// appended to dst. After an error dst is what it was.
func (s *Signer) AppendSigned(dst []byte, typ string, claims []byte) ([]byte, error) {
	header, err := s.header(typ)
	if err != nil {
		return dst, err
	}
	enc, from := base64.RawURLEncoding, len(dst)
	out := slices.Grow(dst, len(header)+enc.EncodedLen(len(claims))+1+enc.EncodedLen(s.width))
	out = enc.AppendEncode(append(out, header...), claims)
	sig, err := s.method.sign(out[from:], s.key)
	if err != nil {
		return dst, fmt.Errorf("sign with kid %q: %w", s.kid, err)
	}
	return enc.AppendEncode(append(out, '.'), sig), nil
}

// header is the encoded header with the dot behind it.
func (s *Signer) header(typ string) (string, error) {
	if known, ok := s.headers.Load(typ); ok {
		return known.(string), nil
	}
	doc, err := json.Marshal(Header{Alg: s.alg, Kid: s.kid, Typ: typ})
	if err != nil {
		return "", fmt.Errorf("encode header: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(doc) + "."
	s.headers.Store(typ, text)
	return text, nil
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
