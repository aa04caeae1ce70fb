package api

import "time"

// RotateRequest asks for a rotation now: POST /v1/rings/{ring}/rotate.
type RotateRequest struct {
	// To names the key to rotate to: a retired one that is not closed, which is
	// a rollback, or the standby. Absent means the standby.
	To string `json:"to,omitempty"`
	// Force takes a standby that is not safe yet; RotateResponse.Breaks says what
	// that breaks.
	Force  bool   `json:"force,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// RotateResponse tells what a rotation did, or would do.
type RotateResponse struct {
	Ring   string `json:"ring"`
	DryRun bool   `json:"dry_run"`
	// Changed is false where the key that was asked for signed already.
	Changed bool `json:"changed"`
	// RetiredKid signed until now; its tokens verify until RetiredUntil. Absent
	// where nobody signed before, and where the active key stays.
	RetiredKid   string    `json:"retired_kid,omitempty"`
	RetiredUntil time.Time `json:"retired_until,omitzero"`
	ActiveKid    string    `json:"active_kid"`
	// Reinstated says that the active key has signed before: a rollback.
	Reinstated bool `json:"reinstated,omitempty"`
	// SafeAt is when every consumer knows the active key, where they may not do
	// so now; absent while a target is behind. WaitingFor names those targets.
	SafeAt     time.Time `json:"safe_at,omitzero"`
	WaitingFor []string  `json:"waiting_for,omitempty"`
	// Breaks says in sentences what Force does to consumers; absent where all
	// tokens verify.
	Breaks []string `json:"breaks,omitempty"`
}

// RevokeRequest takes keys out of every set at once and closes them for good:
// POST /v1/keys/{kid}/revoke, POST /v1/rings/{ring}/revoke for every key of a
// ring, POST /v1/revoke for several keys of one issuer in one step.
type RevokeRequest struct {
	// Kids are the keys, on POST /v1/revoke alone: the other paths name theirs.
	Kids []string `json:"kids,omitempty"`
	// Reason is required but for a dry run: it goes into the audit log.
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	// SignNow lets a standby sign that is not safe yet, where otherwise nobody
	// would sign; Successor.Breaks says what that breaks.
	SignNow bool `json:"sign_now,omitempty"`
}

// RevokeResponse tells the exposure of a revocation: what it does, or would do,
// to tokens and consumers, and until when. Times are bounds, not forecasts.
type RevokeResponse struct {
	Issuer string `json:"issuer"`
	DryRun bool   `json:"dry_run"`
	// Changed is false where all of these keys had been revoked before.
	Changed bool `json:"changed"`
	// Generation is that of the manifest; in a dry run the one that stands.
	Generation uint64 `json:"generation"`
	// Revoked are the keys that this step revokes, AlreadyRevoked those that were
	// named and that an earlier one had.
	Revoked        []RevokedKey `json:"revoked"`
	AlreadyRevoked []string     `json:"already_revoked,omitempty"`
	// Successors are the rings that somebody else signs for from now on, or nobody.
	Successors []Successor `json:"successors"`
	// Targets tells when each place stops showing the keys.
	Targets []TargetExposure `json:"targets"`
	// CutOff is what replicas may do that do not hear of it; absent where there
	// can be none.
	CutOff *CutOffExposure `json:"cut_off,omitempty"`
	// Consumers tells when those that verify stop trusting the keys, by kind.
	Consumers []ConsumerExposure `json:"consumers"`
}

// RevokedKey is one key that leaves every set.
type RevokedKey struct {
	Kid string `json:"kid"`
	// Ring is empty for an adopted key.
	Ring string `json:"ring,omitempty"`
	// State is what the key was before.
	State string `json:"state"`
	// TokensUntil is when the last of its tokens would have expired: until then
	// tokens die that are out. Absent where the key never signed.
	TokensUntil time.Time `json:"tokens_until,omitzero"`
}

// The values of Successor.Kind.
const (
	SuccessorStandby  = "standby"  // proven: every consumer knows it
	SuccessorRetired  = "retired"  // it signed before, and every consumer knows it
	SuccessorUnproven = "unproven" // by sign_now or force: not every consumer knows it
	SuccessorNone     = "none"     // nobody signs until the standby is safe
)

// Successor is who signs for a ring afterwards.
type Successor struct {
	Ring string `json:"ring"`
	Kind string `json:"kind"`
	// Kid is the key that signs; of kind none the standby that is waited for,
	// absent where it is not made yet.
	Kid string `json:"kid,omitempty"`
	// SafeAt is when every consumer knows that key, where they may not do so now;
	// absent while a target is behind. WaitingFor names those targets.
	SafeAt     time.Time `json:"safe_at,omitzero"`
	WaitingFor []string  `json:"waiting_for,omitempty"`
	// Breaks says in sentences what goes wrong until then.
	Breaks []string `json:"breaks,omitempty"`
}

// TargetExposure is when one target stops showing the revoked keys, where its
// writer reaches it. What a replica serves that is cut off is CutOffExposure's.
type TargetExposure struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	StopsBy time.Time `json:"stops_by"`
}

// CutOffExposure is what a replica may do that cannot hear of the revocation.
type CutOffExposure struct {
	// SignUntil is when the last such replica stops signing with a revoked key;
	// absent where none of these signs.
	SignUntil time.Time `json:"sign_until,omitzero"`
	// ServeUntil is when the last such replica stops serving them; absent where
	// replicas serve nothing themselves.
	ServeUntil time.Time `json:"serve_until,omitzero"`
}

// The values of ConsumerExposure.Kind.
const (
	// ConsumersPolling read the set again within consumer_cache, from replicas
	// that are not cut off or from shared targets.
	ConsumersPolling = "polling"
	// ConsumersPollingCutOff do the same, at a replica that is cut off.
	ConsumersPollingCutOff = "polling_cut_off"
	// ConsumersUnknownKid read the set again only when a token names a kid that
	// they do not know.
	ConsumersUnknownKid = "unknown_kid"
)

// ConsumerExposure is when one kind of consumer stops trusting the revoked keys.
type ConsumerExposure struct {
	Kind string `json:"kind"`
	// Until is absent where time alone does not end it; Note says what does.
	Until time.Time `json:"until,omitzero"`
	Note  string    `json:"note"`
}

// AcceptRequest puts the manifest that this replica has seen last in the place
// of one that is frozen, lost or corrupt: POST /v1/issuers/{issuer}/accept.
type AcceptRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Force gives up what another replica has seen beyond this one.
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// AcceptResponse tells what an accept did, or would do.
type AcceptResponse struct {
	Issuer     string `json:"issuer"`
	DryRun     bool   `json:"dry_run"`
	Lineage    string `json:"lineage"`
	Generation uint64 `json:"generation"`
	// Retired are active keys, and Dropped standbys, whose private halves are
	// gone from the store. Destroyed are halves that came back with a restore and
	// are destroyed again, and halves that no manifest names.
	Retired   []string `json:"retired"`
	Dropped   []string `json:"dropped"`
	Destroyed []string `json:"destroyed"`
	// Successors are the rings that have no active key then.
	Successors []Successor `json:"successors"`
}
