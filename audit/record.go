package audit

import "time"

// Event says what was asked for.
type Event string

// The events.
const (
	EventSign Event = "sign" // a token, on a sign socket
	// What changes a manifest is written twice: asked before it is done, then its outcome.
	EventRotateAsked Event = "rotate_asked"
	EventRotate      Event = "rotate"
	EventRevokeAsked Event = "revoke_asked"
	EventRevoke      Event = "revoke"
	EventAcceptAsked Event = "accept_asked"
	EventAccept      Event = "accept"
	EventAdmin       Event = "admin" // anything else on the admin socket
	// EventTorn is no decision: the bytes before it in the file are what a crash,
	// or a disk without room, left of a record that nobody was told of.
	EventTorn Event = "torn"
	// EventLost is no decision: Count of them, from First to Time, have no record,
	// since it could not be written and was not required. It has no caller.
	EventLost Event = "lost"
)

// Decision says what became of it.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Record is one decision. In the log the members of the chain follow: chain,
// seq, prev and hash, which Log adds. Members that do not apply are left out; the caller's
// ids never are.
type Record struct {
	// Time is when it was decided; Append fills it in where it is zero.
	Time     time.Time `json:"time"`
	Event    Event     `json:"event"`
	Decision Decision  `json:"decision,omitempty"`
	// Code is the problem code that the caller was answered with (package api).
	Code string `json:"code,omitempty"`
	// Socket is the configured name of the socket.
	Socket string `json:"socket"`
	// UID and GID are those of connect(2). 4294967295 is a caller whose
	// credentials are not known, 65534 one of a foreign user namespace.
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"` // where to look, not a proof

	Profile string `json:"profile,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	Ring    string `json:"ring,omitempty"`
	Kid     string `json:"kid,omitempty"`
	// Kids are the keys that a revocation is about, Force and SignNow what an
	// operator took upon himself.
	Kids    []string `json:"kids,omitempty"`
	Force   bool     `json:"force,omitempty"`
	SignNow bool     `json:"sign_now,omitempty"`
	// JTI, Subject, Audiences and ExpiresAt are the token's.
	JTI       string    `json:"jti,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	Audiences []string  `json:"audiences,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// ClaimsSHA256 is the hex digest of the claims as they were signed.
	ClaimsSHA256 string `json:"claims_sha256,omitempty"`
	// Reason is why it was refused, or the reason that the operator gave.
	Reason string `json:"reason,omitempty"`
	// Count is how many refusals this record stands for, where it is more than
	// itself: the first was at First, the last at Time. What can differ between
	// them, such as the pid or the reason, is that of the last.
	Count int       `json:"count,omitempty"`
	First time.Time `json:"first,omitzero"`
}
