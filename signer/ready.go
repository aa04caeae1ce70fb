package signer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// Ready lists what keeps this process from signing; none means that it can.
func (s *Signer) Ready(now time.Time) []keyring.Alarm {
	return slices.DeleteFunc(s.Alarms(now), func(a keyring.Alarm) bool { return !a.Fatal })
}

// Alarms lists all that is not as it should be, sorted. The fatal ones stop a
// ring, or everything. A ring that still waits for its first key is not one of
// them while another ring signs: that is how a ring begins.
func (s *Signer) Alarms(now time.Time) []keyring.Alarm {
	var out []keyring.Alarm
	var begins []int // places of rings without a first key
	signs := false
	st := s.state.Load()
	for _, name := range slices.Sorted(maps.Keys(st.issuers)) {
		v := st.issuers[name]
		if v.snap == nil {
			out = append(out, keyring.Alarm{
				Code: "no_manifest", Issuer: name, Fatal: true,
				Message: "the manifest of this issuer has not been read yet; see the rotator's reasons",
			})
			continue
		}
		for _, ring := range slices.Sorted(maps.Keys(v.rings)) {
			_, prob := v.pick(ring, now)
			signs = signs || prob == nil
			if prob == nil || v.drained(ring) {
				continue
			}
			if prob.Code == api.NoActiveKey && v.unborn(ring) {
				begins = append(begins, len(out))
			}
			out = append(out, keyring.Alarm{Code: ringCode(prob), Issuer: name, Ring: ring, Message: prob.Detail, Since: v.since(prob), Fatal: true})
		}
		out = append(out, v.loadAlarms()...)
	}
	for _, i := range begins {
		out[i].Fatal = !signs
	}
	if since := s.auditBroken.Load(); since != nil {
		out = append(out, keyring.Alarm{
			Code: "audit_failed", Since: *since, Fatal: !s.auditOptional,
			Message: "the audit log cannot be written, see the log for the reason; while it is required nothing is signed",
		})
	}
	slices.SortStableFunc(out, func(a, b keyring.Alarm) int {
		return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Ring, b.Ring), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Kid, b.Kid))
	})
	return out
}

// ringCode is the code of the alarm for a ring that cannot sign.
func ringCode(p *api.Problem) string {
	if p.Code == api.Unavailable {
		return "key_not_loaded"
	}
	return string(p.Code)
}

// since is when a lease ended, where that is why nobody signs.
func (v *view) since(p *api.Problem) time.Time {
	if p.Code == api.SigningLapsed {
		return v.snap.Lease
	}
	return time.Time{}
}

// drained reports whether the configuration in force has left the ring out.
func (v *view) drained(ring string) bool {
	_, ok := v.snap.Config.Ring(ring)
	return !ok
}

// unborn reports whether no key of the ring was ever active.
func (v *view) unborn(ring string) bool {
	return !slices.ContainsFunc(v.snap.Keys, func(k keyring.Key) bool { return k.Ring == ring && !k.Activated.IsZero() })
}

// loadAlarms tells which halves are missing. Whether that stops a ring is said
// by the ring's own alarm.
func (v *view) loadAlarms() []keyring.Alarm {
	const goesOn = "the rotator replaces it by itself if it is a standby, and rotates early to the proven standby if it is the active key, while the previous key signs on within its lease; "
	mend := map[string]string{
		"key_missing":   "the store has no private half for this key, so it cannot sign; " + goesOn + "find out who took it away",
		"key_mismatch":  "the private half in the store does not belong to this key, so it never signs; " + goesOn + "find out who wrote it",
		"key_denied":    "the store refuses the signer's permission to read this private half; compare the policy with deploy/vault",
		codeUnavailable: "the store cannot be reached to load this private half; it is tried again",
	}
	var out []keyring.Alarm
	for kid, f := range v.failed {
		k := v.snap.Key(kid)
		if k == nil {
			continue
		}
		code := alarmCode(f.err)
		out = append(out, keyring.Alarm{
			Code: code, Issuer: v.name, Ring: k.Ring, Kid: kid, Since: f.since,
			Message: fmt.Sprintf("%s (%v)", mend[code], f.err),
		})
	}
	return out
}
