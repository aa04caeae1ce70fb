package keyring

import (
	"slices"
	"strings"
	"time"
)

// Exposure tells, before or after a command, what it does to consumers: which
// tokens die, who goes on trusting a revoked key and until when, and who signs next.
type Exposure struct {
	Revoked []RevokedKey
	// Successors are the rings whose active key changes, or that have none now.
	Successors []Successor
	// SharedBy is when shared targets exclude the revoked keys if their writer
	// reaches them: one synchronisation from now.
	SharedBy time.Time
	// SignersUntil is when the last replica that is cut off stops signing with a
	// revoked key, zero where none could.
	SignersUntil time.Time
	// ServedUntil is when the last replica that is cut off stops serving them.
	ServedUntil time.Time
	// ConsumersUntil is when the last consumer's copy with a revoked key is too
	// old to be used: consumer_cache after the latest of the above.
	ConsumersUntil time.Time
	// ConnectedUntil is the same for consumers that fetch from replicas that
	// are not cut off, and from shared targets.
	ConnectedUntil time.Time
}

// RevokedKey is one key that leaves every set.
type RevokedKey struct {
	Kid, Ring string
	// State is what the key was before.
	State State
	// TokensUntil is when the last token of the key would have expired
	// everywhere: until then its tokens die. Zero where it never signed.
	TokensUntil time.Time
}

// SuccessorKind says how a ring's next key came to sign.
type SuccessorKind string

// The kinds of successors.
const (
	ProvenStandby   SuccessorKind = "standby"
	RetiredKey      SuccessorKind = "retired"  // consumers know its kid already
	UnprovenStandby SuccessorKind = "unproven" // by force, of a rollback too: some consumers refuse its tokens until SafeAt
	NobodySigns     SuccessorKind = "none"     // until the standby is proven, at SafeAt if that is known
)

// Successor is who signs for a ring after a command.
type Successor struct {
	Ring, Kid string
	Kind      SuccessorKind
	// SafeAt is when every consumer knows the key, or the standby that is
	// waited for; zero while a target is behind.
	SafeAt time.Time
	// Waiting names the required targets that have not been read back with it.
	Waiting []string
}

// Exposed compares a manifest with the one that a command makes, or made, of it.
func Exposed(before, after *Snapshot, now time.Time) Exposure {
	e := Exposure{Revoked: revoked(before, after, now)}
	for _, r := range after.Config.Rings {
		if s, changed := successor(before, after, r.Name, now); changed {
			e.Successors = append(e.Successors, s)
		}
	}
	if len(e.Revoked) == 0 {
		return e
	}
	e.SharedBy = now.Add(time.Duration(before.Config.SyncInterval))
	e.ConnectedUntil = e.SharedBy.Add(time.Duration(before.Config.ConsumerCache + before.Config.ClockSkew))
	e.ConsumersUntil = e.ConnectedUntil
	if before.Config.SingleProcess {
		return e
	}
	skew := time.Duration(before.Config.ClockSkew)
	for _, r := range e.Revoked {
		if k := before.Key(r.Kid); k != nil && before.SignUntil(k).After(now) {
			e.SignersUntil = latest(e.SignersUntil, before.SignUntil(k).Add(skew))
		}
	}
	if before.Config.SelfServed() {
		e.ServedUntil = before.ServeUntil().Add(skew)
		e.ConsumersUntil = latest(e.ConsumersUntil, e.ServedUntil.Add(time.Duration(before.Config.ConsumerCache)))
	}
	return e
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func revoked(before, after *Snapshot, now time.Time) []RevokedKey {
	var out []RevokedKey
	for i := range before.Keys {
		k := &before.Keys[i]
		next := after.Key(k.JWK.Kid)
		if !k.Revoked.IsZero() || next == nil || next.Revoked.IsZero() {
			continue
		}
		r := RevokedKey{Kid: k.JWK.Kid, Ring: k.Ring, State: k.State(now)}
		if until := before.SignUntil(k); !k.Activated.IsZero() {
			r.TokensUntil = until.Add(time.Duration(k.Tail))
		}
		out = append(out, r)
	}
	for _, a := range before.Adopted {
		i := slices.IndexFunc(after.Adopted, func(b Adopted) bool { return b.JWK.Kid == a.JWK.Kid })
		if a.Revoked.IsZero() && i >= 0 && !after.Adopted[i].Revoked.IsZero() {
			out = append(out, RevokedKey{Kid: a.JWK.Kid, State: Active, TokensUntil: a.Until})
		}
	}
	slices.SortFunc(out, func(a, b RevokedKey) int { return strings.Compare(a.Kid, b.Kid) })
	return out
}

// successor tells who signs for a ring where that is not who signed before.
func successor(before, after *Snapshot, ring string, now time.Time) (Successor, bool) {
	was, is := before.Active(ring), after.Active(ring)
	out := Successor{Ring: ring}
	switch {
	case is == nil && was == nil, is != nil && was != nil && is.JWK.Kid == was.JWK.Kid:
		return out, false
	case is == nil:
		out.Kind = NobodySigns
		if k := after.Standby(ring); k != nil {
			out.Kid, out.SafeAt, out.Waiting = k.JWK.Kid, after.SafeAt(k, now), after.WaitingFor(k)
		}
		return out, true
	}
	out.Kid, out.Kind = is.JWK.Kid, ProvenStandby
	old, safe := before.Key(is.JWK.Kid), after.SafeAt(is, now)
	switch {
	case !is.Forced.IsZero() && (safe.IsZero() || now.Before(safe)):
		out.Kind = UnprovenStandby
		out.SafeAt, out.Waiting = safe, after.WaitingFor(is)
	case old != nil && !old.Activated.IsZero():
		out.Kind = RetiredKey
	}
	return out, true
}
