package admin

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/keyring"
)

// collector computes, at each scrape, what follows from the snapshots and from
// what the parts say of themselves: a key that is gone leaves no series behind.
type collector struct{ a *Admin }

// The metrics that collector computes.
var (
	keysDesc = desc("keyturn_keys", "Keys by their state.", "issuer", "ring", "state")
	// Of the active key; the kid is no label, since there would be one more series with every rotation.
	activatedDesc  = desc("keyturn_key_activated_timestamp_seconds", "When the active key became active.", "issuer", "ring")
	nextDesc       = desc("keyturn_next_rotation_timestamp_seconds", "When the schedule runs next.", "issuer", "ring")
	overdueDesc    = desc("keyturn_rotation_overdue", "Whether a rotation is due and has not happened within two synchronisations.", "issuer", "ring")
	leaseDesc      = desc("keyturn_lease_expiry_timestamp_seconds", "Until when this issuer's keys may sign unless the lease is renewed.", "issuer")
	generationDesc = desc("keyturn_manifest_generation", "Generation of the manifest that this process acts on.", "issuer")
	readDesc       = desc("keyturn_manifest_read_timestamp_seconds", "When this process last read the manifest.", "issuer")
	confirmedDesc  = desc("keyturn_target_confirmed_timestamp_seconds", "When the target was last read back.", "issuer", "target")
	serveDesc      = desc("keyturn_target_serve_until_timestamp_seconds", "Until when what stands at the target may be served unless the manifest is read again.", "issuer", "target")
	safeDesc       = desc("keyturn_key_safe_timestamp_seconds", "When the standby key may sign; absent while a required target is behind.", "issuer", "ring")
	orphansDesc    = desc("keyturn_orphans", "Private halves that no manifest names, recorded as closed and not yet destroyed.", "issuer")
	adoptedDesc    = desc("keyturn_adopted_keys", "Keys of others that stay in the set until their date.", "issuer")
	frozenDesc     = desc("keyturn_manifest_frozen", "Whether the stored manifest is frozen, lost, corrupt or not the one that was seen, so that nothing is written.", "issuer")
	doubtDesc      = desc("keyturn_clock_doubt", "Whether this host's clock is in doubt, so that nothing is written, closed or withdrawn.", "issuer")
	damagedDesc    = desc("keyturn_damaged_halves", "Private halves that are missing or do not match, and so do not sign.", "issuer", "ring")
	vaultDesc      = desc("keyturn_vault_token_expiry_timestamp_seconds", "When the Vault token ends unless it is renewed.")
	alarmsDesc     = desc("keyturn_alarms", "What is not as it should be, by code.", "code")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		keysDesc, activatedDesc, nextDesc, overdueDesc, leaseDesc, generationDesc, readDesc, confirmedDesc, serveDesc, safeDesc,
		orphansDesc, adoptedDesc, frozenDesc, doubtDesc, damagedDesc, vaultDesc, alarmsDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	alarms := c.a.cfg.Alarms()
	for _, name := range c.a.cfg.Issuers {
		when(ch, readDesc, c.a.cfg.ReadAt(name), name)
		for _, t := range c.a.cfg.Targets(name) {
			when(ch, confirmedDesc, t.ReadBackAt, name, t.Name)
			when(ch, serveDesc, t.ServeUntil, name, t.Name)
		}
		gauge(ch, frozenDesc, truth(raised(alarms, name, "frozen", "manifest_missing", "manifest_corrupt", "manifest_behind")), name)
		gauge(ch, doubtDesc, truth(raised(alarms, name, "clock_fault")), name)
		if s := c.a.snapshot(name); s != nil {
			c.issuer(ch, name, s, now)
			damaged := damagedHalves(alarms, name, s)
			for _, r := range rings(s) {
				gauge(ch, damagedDesc, float64(len(damaged[r.Name])), name, r.Name)
			}
		}
	}
	if at, found := c.a.cfg.VaultExpiry(); found {
		when(ch, vaultDesc, at)
	}
	count := map[string]int{}
	h := c.a.judge(now)
	for _, r := range h.public.Reasons { // those of the signer included
		count[r.Code]++
	}
	for code, n := range count {
		gauge(ch, alarmsDesc, float64(n), code)
	}
}

func (c *collector) issuer(ch chan<- prometheus.Metric, name string, s *keyring.Snapshot, now time.Time) {
	gauge(ch, generationDesc, float64(s.Generation), name)
	when(ch, leaseDesc, s.Lease, name)
	gauge(ch, orphansDesc, float64(len(s.Orphans)), name)
	gauge(ch, adoptedDesc, float64(len(s.Adopted)), name)
	for _, r := range rings(s) {
		count := map[keyring.State]int{}
		for i := range s.Keys {
			if k := &s.Keys[i]; k.Ring == r.Name {
				count[k.State(now)]++
			}
		}
		for _, state := range states() {
			gauge(ch, keysDesc, float64(count[state]), name, r.Name, string(state))
		}
		if r.Rotate == "" { // it is being drained and rotates no more
			continue
		}
		if k := s.Active(r.Name); k != nil {
			when(ch, activatedDesc, k.Activated, name, r.Name)
		}
		if k := s.Standby(r.Name); k != nil {
			when(ch, safeDesc, s.SafeAt(k, now), name, r.Name)
		}
		next := c.a.cfg.Next(r, s)
		when(ch, nextDesc, next, name, r.Name)
		slack := 2 * time.Duration(s.Config.SyncInterval)
		gauge(ch, overdueDesc, truth(!next.IsZero() && now.After(s.Expected(r.Name, next, now).Add(slack))), name, r.Name)
	}
}

// raised reports whether an issuer has an alarm of one of these codes.
func raised(alarms []keyring.Alarm, issuer string, codes ...string) bool {
	return slices.ContainsFunc(alarms, func(a keyring.Alarm) bool { return a.Issuer == issuer && slices.Contains(codes, a.Code) })
}

// damagedHalves are the kids, by ring, whose private halves somebody reports as
// missing or wrong: the rotator, or the signer that could not load one.
func damagedHalves(alarms []keyring.Alarm, issuer string, s *keyring.Snapshot) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, a := range alarms {
		k := s.Key(a.Kid)
		if a.Issuer != issuer || k == nil || !slices.Contains([]string{"half_damaged", "key_missing", "key_mismatch"}, a.Code) {
			continue
		}
		if out[k.Ring] == nil {
			out[k.Ring] = map[string]bool{}
		}
		out[k.Ring][a.Kid] = true
	}
	return out
}

// when sends a time, unless it is not known.
func when(ch chan<- prometheus.Metric, d *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		gauge(ch, d, float64(at.UnixMilli())/1000, labels...)
	}
}

// gauge sends a value. Names of issuers, rings and targets come from
// configurations, so a value that is no UTF-8 is a fault of ours: it shows in
// the scrape.
func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}
