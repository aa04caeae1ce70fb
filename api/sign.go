package api

import (
	"encoding/json"
	"time"
)

// Limits of one request on the sign socket.
const (
	MaxSignBytes  = 64 << 10 // POST /v1/sign, in bytes
	MaxBatchBytes = 8 << 20  // POST /v1/sign/batch, in bytes
	MaxBatch      = 1000     // requests in one batch
)

// SignRequest asks for one token: POST /v1/sign.
type SignRequest struct {
	// Profile names who may sign what; GET /v1/profiles lists the caller's.
	Profile string `json:"profile"`
	// Subject becomes `sub`, where the profile lets the caller choose it.
	Subject string `json:"subject,omitempty"`
	// Audience becomes `aud`. One string or an array; absent means the
	// profile's only audience.
	Audience Audience `json:"audience,omitempty"`
	// TTLSeconds is the life of the token. Absent means the profile's default;
	// more than its maximum is refused, never clamped.
	TTLSeconds *int64 `json:"ttl_seconds,omitempty"`
	// Claims are added to the token as they are, where the profile allows them.
	Claims map[string]json.RawMessage `json:"claims,omitempty"`
}

// SignResponse is a signed token (JWS compact serialisation, RFC 7515 §7.1).
type SignResponse struct {
	Token     string    `json:"token"`
	Kid       string    `json:"kid"`
	ExpiresAt time.Time `json:"expires_at"`
	// ExpiresIn is seconds from now on the daemon's clock.
	ExpiresIn int64 `json:"expires_in"`
}

// BatchRequest asks for up to MaxBatch tokens: POST /v1/sign/batch. Each entry
// is a SignRequest and is judged alone.
type BatchRequest struct {
	Requests []json.RawMessage `json:"requests"`
}

// BatchResponse answers in the order of the requests.
type BatchResponse struct {
	Results []BatchResult `json:"results"`
}

// BatchResult is a token or the problem with this one request.
type BatchResult struct {
	*SignResponse
	Error *Problem `json:"error,omitempty"`
}

// Profiles answers GET /v1/profiles: what this caller may use.
type Profiles struct {
	Profiles []Profile `json:"profiles"`
}

// Profile is a profile as its callers see it.
type Profile struct {
	Name      string   `json:"name"`
	Issuer    string   `json:"issuer"`
	Ring      string   `json:"ring"`
	Algorithm string   `json:"algorithm"`
	Type      string   `json:"typ"`
	Subject   Subject  `json:"subject"`
	Audiences []string `json:"audiences"`
	// Claims that a request may name, and those that it must.
	AllowedClaims     []string `json:"allowed_claims"`
	RequiredClaims    []string `json:"required_claims"`
	DefaultTTLSeconds int64    `json:"default_ttl_seconds"`
	MaxTTLSeconds     int64    `json:"max_ttl_seconds"`
	// When is the condition, in CEL, that every request has to meet: one that
	// does not is forbidden. "" is none.
	When string `json:"when,omitempty"`
	// Rate is how often each caller may ask by the profile; nil is no limit.
	Rate *Rate `json:"rate,omitempty"`
}

// Rate is so many requests a second, refused ones counted, and so many at once
// after a while without any. Both are at least 1.
type Rate struct {
	PerSecond int `json:"per_second"`
	Burst     int `json:"burst"`
}

// Subject says where a profile's `sub` comes from; one member is set.
type Subject struct {
	Fixed    string `json:"fixed,omitempty"`
	FromPeer string `json:"from_peer,omitempty"`
	Pattern  string `json:"pattern,omitempty"`
}

// Audience is `aud` as RFC 7519 §4.1.3 allows it in requests: one string or an
// array of strings. It is written as an array.
type Audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *Audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = Audience{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return err
	}
	*a = many
	return nil
}
