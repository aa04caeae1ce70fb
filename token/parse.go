package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/strictjson"
)

// MaxBytes is the longest token that Parse reads.
const MaxBytes = 256 << 10

// Unverified is a token as it was read: whoever sent it may have made all of it up.
type Unverified struct {
	Header Header
	Claims Claims

	input string // what the signature is over
	sig   []byte
}

// Claims are the registered claims (RFC 7519 §4.1), and all of them as they
// stand in the token.
type Claims struct {
	Issuer   string
	Subject  string
	Audience []string
	ID       string
	// Times that the token does not name are zero.
	ExpiresAt time.Time
	NotBefore time.Time
	IssuedAt  time.Time
	// Raw is the payload as it stands in the token.
	Raw json.RawMessage
	// All holds every claim by name, the registered ones included.
	All map[string]json.RawMessage
}

// Parse reads a compact JWS whose payload is a JSON object. It refuses what
// readers could understand differently, and says why; every error wraps
// ErrMalformed or ErrAlgorithm.
func Parse(raw string) (*Unverified, error) {
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrMalformed, len(raw), MaxBytes)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: %d parts between dots; a compact JWS has 3", ErrMalformed, len(parts))
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		if decoded[i], err = decode(parts[i]); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
		}
	}
	header, err := parseHeader(decoded[0])
	if err != nil {
		return nil, err
	}
	claims, err := parseClaims(decoded[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return &Unverified{
		Header: header, Claims: claims,
		input: raw[:len(parts[0])+1+len(parts[1])], sig: decoded[2],
	}, nil
}

// decode reads base64url without padding (RFC 7515 §2): the one spelling of
// those octets. Go's decoder skips line breaks even when it is strict.
func decode(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("is empty")
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("holds a line break")
	}
	out, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("is not base64url without padding (RFC 7515 §2)")
	}
	return out, nil
}

func parseHeader(doc []byte) (Header, error) {
	var h Header
	var members map[string]json.RawMessage
	if err := strictjson.UnmarshalOpen(doc, &members); err != nil || members == nil {
		return h, fmt.Errorf("%w: header: %w", ErrMalformed, orNull(err))
	}
	if _, ok := members["crit"]; ok {
		return h, fmt.Errorf("%w: header names critical extensions (crit); none is understood here (RFC 7515 §4.1.11)", ErrMalformed)
	}
	if err := noTwins(members, "alg", "kid", "typ", "crit"); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if err := errors.Join(
		stringMember(members, "alg", &h.Alg),
		stringMember(members, "kid", &h.Kid),
		stringMember(members, "typ", &h.Typ),
	); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if _, err := Method(h.Alg); err != nil {
		return h, err
	}
	if h.Kid == "" {
		return h, fmt.Errorf("%w: header has no kid", ErrMalformed)
	}
	return h, nil
}

func parseClaims(doc []byte) (Claims, error) {
	c := Claims{Raw: doc}
	if err := strictjson.UnmarshalOpen(doc, &c.All); err != nil || c.All == nil {
		return c, fmt.Errorf("claims: %w", orNull(err))
	}
	if err := noTwins(c.All, "iss", "sub", "aud", "exp", "nbf", "iat", "jti"); err != nil {
		return c, fmt.Errorf("claims: %w", err)
	}
	err := errors.Join(
		stringMember(c.All, "iss", &c.Issuer),
		stringMember(c.All, "sub", &c.Subject),
		stringMember(c.All, "jti", &c.ID),
		audienceMember(c.All, &c.Audience),
		dateMember(c.All, "exp", &c.ExpiresAt),
		dateMember(c.All, "nbf", &c.NotBefore),
		dateMember(c.All, "iat", &c.IssuedAt),
	)
	return c, err
}

// noTwins refuses names that differ from a known one in case only: some
// readers, Go's encoding/json among them, take one for the other.
func noTwins(members map[string]json.RawMessage, known ...string) error {
	for name := range members {
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return fmt.Errorf("member %q could be taken for %q", name, k)
			}
		}
	}
	return nil
}

// audienceMember reads aud: a string or an array of strings (RFC 7519 §4.1.3).
func audienceMember(members map[string]json.RawMessage, into *[]string) error {
	raw, ok := members["aud"]
	if !ok {
		return nil
	}
	var one string
	if isString(raw) && json.Unmarshal(raw, &one) == nil {
		*into = []string{one}
		return nil
	}
	var many []*string // a null in the array stays visible
	if json.Unmarshal(raw, &many) != nil || many == nil || slices.Contains(many, nil) {
		return errors.New("member aud is neither a string nor an array of strings")
	}
	for _, one := range many {
		*into = append(*into, *one)
	}
	return nil
}

func orNull(err error) error {
	if err == nil {
		return errors.New("null is not an object")
	}
	return err
}

func isString(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }

// stringMember reads a member that must be a string where it is present.
func stringMember(members map[string]json.RawMessage, name string, into *string) error {
	raw, ok := members[name]
	if !ok {
		return nil
	}
	if !isString(raw) || json.Unmarshal(raw, into) != nil {
		return fmt.Errorf("member %s is not a string", name)
	}
	return nil
}

// dateMember reads a NumericDate (RFC 7519 §2): seconds, perhaps with a
// fraction. What lies outside the years 1970 to 9999 is refused: no clock gets there,
// and beyond it arithmetic on times goes wrong.
func dateMember(members map[string]json.RawMessage, name string, into *time.Time) error {
	raw, ok := members[name]
	if !ok {
		return nil
	}
	const last = 253402300799
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(v >= 0 && v <= last) {
		return fmt.Errorf("member %s is not a time in seconds since 1970", name)
	}
	sec, frac := math.Modf(v)
	*into = time.Unix(int64(sec), int64(frac*float64(time.Second))).UTC()
	return nil
}
