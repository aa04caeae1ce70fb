package api

import "time"

// Issuers answers GET /v1/issuers on the admin socket.
type Issuers struct {
	Issuers []Issuer `json:"issuers"`
	Replica Replica  `json:"replica"`
}

// Replica is the process that answered.
type Replica struct {
	Version   string    `json:"version"`
	Roles     []string  `json:"roles"`
	StartedAt time.Time `json:"started_at"`
	// Ready says what /readyz says, SignerReady what /readyz/signer says.
	Ready       bool     `json:"ready"`
	SignerReady bool     `json:"signer_ready"`
	Reasons     []Reason `json:"reasons"`
}

// Reason is one thing that is not as it should be, and how to mend it.
type Reason struct {
	Code    string    `json:"code"`
	Issuer  string    `json:"issuer,omitempty"`
	Target  string    `json:"target,omitempty"`
	Kid     string    `json:"kid,omitempty"`
	Message string    `json:"message"`
	Since   time.Time `json:"since,omitzero"`
}

// Issuer is one URL and its published set.
type Issuer struct {
	Name       string    `json:"name"`
	URL        string    `json:"url"`
	Lineage    string    `json:"lineage"`
	Generation uint64    `json:"generation"`
	Revision   int64     `json:"revision"`
	Lease      time.Time `json:"lease,omitzero"`
	// ReadAt is when this replica last read the manifest.
	ReadAt time.Time `json:"read_at,omitzero"`
	Timing Timing    `json:"timing"`
	Rings  []Ring    `json:"rings"`
	// Adopted are keys of others that stay in the set until their date.
	Adopted []AdoptedKey `json:"adopted,omitempty"`
	Targets []Target     `json:"targets"`
	Reasons []Reason     `json:"reasons"`
}

// Timing is what the solver derived for an issuer (docs: life of a key).
type Timing struct {
	ConsumerCacheSeconds int64 `json:"consumer_cache_seconds"`
	ClockSkewSeconds     int64 `json:"clock_skew_seconds"`
	LeewaySeconds        int64 `json:"leeway_seconds"`
	OutageBudgetSeconds  int64 `json:"outage_budget_seconds"`
	LeadSeconds          int64 `json:"lead_seconds"`
	TailSeconds          int64 `json:"tail_seconds"`
	SpanSeconds          int64 `json:"span_seconds"`
}

// Ring is one algorithm on one schedule.
type Ring struct {
	Name               string    `json:"name"`
	Algorithm          string    `json:"algorithm"`
	Custody            string    `json:"custody"`
	Rotate             string    `json:"rotate"`
	MaxTokenTTLSeconds int64     `json:"max_token_ttl_seconds"`
	NextRotation       time.Time `json:"next_rotation,omitzero"`
	Keys               []Key     `json:"keys"`
}

// Key is one key as facts: the times at which things happened to it.
type Key struct {
	Kid       string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	// SafeAt is when a standby may sign: confirmed by every required target,
	// and the lead has passed. Absent while a target is behind.
	SafeAt      time.Time `json:"safe_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	RetiredAt   time.Time `json:"retired_at,omitzero"`
	SignUntil   time.Time `json:"sign_until,omitzero"`
	ClosedAt    time.Time `json:"closed_at,omitzero"`
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`
	// WithdrawnAt is when the key leaves, or left, the published set.
	WithdrawnAt time.Time `json:"withdrawn_at,omitzero"`
	// RevokedAt is when an operator took the key out of every set, ForcedAt when
	// one let it sign before it was safe.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	ForcedAt  time.Time `json:"forced_at,omitzero"`
	// Confirmed lists the targets that were read back with this key, WaitingFor
	// the required ones that were not.
	Confirmed  map[string]time.Time `json:"confirmed,omitempty"`
	WaitingFor []string             `json:"waiting_for,omitempty"`
}

// AdoptedKey is a key that keyturn did not make and found in a set that it took over.
type AdoptedKey struct {
	Kid       string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
	Until     time.Time `json:"until"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// Target is one place where the set is published or confirmed.
type Target struct {
	Name       string    `json:"name"`
	Kind       string    `json:"kind"`
	Location   string    `json:"location"`
	Required   bool      `json:"required"`
	Generation uint64    `json:"generation"`
	ReadBackAt time.Time `json:"read_back_at,omitzero"`
	ServeUntil time.Time `json:"serve_until,omitzero"`
	Error      string    `json:"error,omitempty"`
}

// Health answers /livez, /readyz and /readyz/signer.
type Health struct {
	Status  string   `json:"status"` // ok | degraded | unavailable
	Reasons []Reason `json:"reasons"`
}
