package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

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
)

// Decision says what became of it.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Record is one decision. Members that do not apply are left out; the caller's
// ids never are.
type Record struct {
	// Time is when it was decided; Append fills it in where it is zero.
	Time     time.Time `json:"time"`
	Event    Event     `json:"event"`
	Decision Decision  `json:"decision"`
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
}

// line is the record as it is written: one line of printing characters,
// whatever its strings hold.
func (r Record) line() ([]byte, error) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r.Time = r.Time.UTC()
	if !r.ExpiresAt.IsZero() {
		r.ExpiresAt = r.ExpiresAt.UTC()
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // the log is read by people and by grep
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encode audit record: %w", err)
	}
	return append(escape(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), '\n'), nil
}

// escape writes what does not print as \u escapes, which mean the same in JSON.
// A caller chooses some of these strings, and whoever reads the log in a
// terminal must not have it rewritten by controls (U+009B, DEL), ended early
// by what counts as a line break (U+0085, U+2028) or turned around (U+202E).
// Such characters stand in strings only: outside of them JSON has none.
func escape(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for _, r := range string(line) {
		if unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}
