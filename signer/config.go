package signer

import (
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/signer/keys"
	"github.com/keyturn/keyturn/signer/profile"
)

// Config is what a Signer is made of.
type Config struct {
	// Keys is where private halves come from.
	Keys keys.Source
	// Audit is required unless AuditOptional says otherwise.
	Audit Recorder
	// AuditOptional releases tokens although their record could not be written.
	AuditOptional bool
	// Rings are those of the configuration; profiles name them.
	Rings    []profile.Ring
	Profiles []profile.Config
	// Logger learns of loaded and missing keys; nil discards it.
	Logger *slog.Logger
	// Observe is told of every decision, for metrics; nil is fine. It must not block.
	Observe func(Outcome)
	// Late is the later of this host's wall clock and of what its boot clock
	// makes of the last reading that was sound: leases end by it. It must not
	// block. [time.Now]
	Late func(issuer string) time.Time
	// Wake is called when a private half was found missing or wrong, so that
	// the rotator sees it in Damaged. It must not block. [nothing]
	Wake func()
}

// Outcome is one decision, without anything that a caller chose.
type Outcome struct {
	// Issuer, Ring and Profile are empty where the profile is unknown or the
	// caller may not use it.
	Issuer  string
	Ring    string
	Profile string
	// Algorithm is that of the key that signed.
	Algorithm string
	// Code is empty when a token was released.
	Code api.Code
	Took time.Duration
}
