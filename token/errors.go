package token

import "errors"

// Why a token or a key set was refused. Each error of Parse, ParseSet and
// Verify wraps one of these and says what was found.
var (
	// ErrMalformed: not a compact JWS that this package reads, or claims that
	// are not what RFC 7519 says.
	ErrMalformed = errors.New("malformed token")
	// ErrAlgorithm: an algorithm without a public key, an unknown one, or
	// another one than the key is for.
	ErrAlgorithm = errors.New("algorithm refused")
	// ErrUnknownKey: no key of the set has the token's kid. The set may be old:
	// fetching it again may help.
	ErrUnknownKey = errors.New("unknown kid")
	// ErrKey: a key that its algorithm cannot use.
	ErrKey = errors.New("key does not fit")
	// ErrSignature: the signature was not made by this key over this token.
	ErrSignature = errors.New("signature does not match")
	// ErrType: another typ than the one that was asked for.
	ErrType = errors.New("wrong typ")
	// ErrIssuer: another issuer than the one that was asked for.
	ErrIssuer = errors.New("wrong issuer")
	// ErrAudience: the token is not for the audience that was asked for.
	ErrAudience = errors.New("wrong audience")
	// ErrExpired: exp has passed.
	ErrExpired = errors.New("token has expired")
	// ErrNotYet: nbf or iat lies in the future.
	ErrNotYet = errors.New("token is not valid yet")
	// ErrSet: the key set breaks RFC 7517 or 7518.
	ErrSet = errors.New("bad key set")
)

// shorten keeps what came from outside from filling an error message.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
