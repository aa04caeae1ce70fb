package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/keyring"
)

// eventCounters are the counters of what happens to manifests, beside rotations.
// Their second label, where they have one, is the ring or the target.
func eventCounters(counter func(name, help string, labels ...string) *prometheus.CounterVec) map[keyring.EventKind]*prometheus.CounterVec {
	return map[keyring.EventKind]*prometheus.CounterVec{
		keyring.KeyRevoked:         counter("keyturn_revocations_total", "Keys that this process revoked; an adopted key has no ring.", "issuer", "ring"),
		keyring.KeyForced:          counter("keyturn_forced_activations_total", "Keys that an operator let sign before every consumer knew them.", "issuer", "ring"),
		keyring.KeyDamaged:         counter("keyturn_damaged_keys_total", "Keys that this process replaced since their private halves were missing or wrong.", "issuer", "ring"),
		keyring.KeyReinstated:      counter("keyturn_reinstatements_total", "Retired keys that sign again, by a rollback or after a revocation.", "issuer", "ring"),
		keyring.ConfirmationVoided: counter("keyturn_confirmations_voided_total", "Standby keys that a target showed once and then did not.", "issuer", "target"),
		keyring.ManifestFrozen:     counter("keyturn_manifest_freezes_total", "Times that this process froze the manifest, since it was not the one that it had seen.", "issuer"),
		keyring.ManifestAccepted:   counter("keyturn_manifest_accepts_total", "Times that this process put its last manifest in the place of a frozen or lost one.", "issuer"),
	}
}

// Event counts a change of a manifest that this process committed.
func (m *Metrics) Event(issuer string, e keyring.Event) {
	c, counted := m.events[e.Kind]
	switch {
	case e.Kind == keyring.KeyActivated:
		m.rotations.WithLabelValues(issuer, e.Ring).Inc()
	case !counted:
	case e.Kind == keyring.ConfirmationVoided:
		c.WithLabelValues(issuer, e.Target).Inc()
	case e.Kind == keyring.ManifestFrozen, e.Kind == keyring.ManifestAccepted:
		c.WithLabelValues(issuer).Inc()
	default:
		c.WithLabelValues(issuer, e.Ring).Inc()
	}
}

// Conflicted counts a write of a manifest that another replica's came before.
func (m *Metrics) Conflicted(issuer string) { m.conflicts.WithLabelValues(issuer).Inc() }

// expect starts the counters of what a snapshot names, so that the first event
// of each shows as an increase.
func (m *Metrics) expect(issuer string, s *keyring.Snapshot) {
	m.conflicts.WithLabelValues(issuer)
	for _, kind := range []keyring.EventKind{keyring.ManifestFrozen, keyring.ManifestAccepted} {
		m.events[kind].WithLabelValues(issuer)
	}
	for _, r := range s.Config.Rings {
		m.rotations.WithLabelValues(issuer, r.Name)
		for _, kind := range []keyring.EventKind{keyring.KeyRevoked, keyring.KeyForced, keyring.KeyDamaged, keyring.KeyReinstated} {
			m.events[kind].WithLabelValues(issuer, r.Name)
		}
	}
	for _, t := range s.Config.Targets {
		m.events[keyring.ConfirmationVoided].WithLabelValues(issuer, t.Name)
		m.drifts.WithLabelValues(issuer, t.Name)
	}
}
