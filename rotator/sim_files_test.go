package rotator

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simClimate says which kinds of faults a walk has. A walk that has all of
// them all the time tests mostly that nothing can happen.
type simClimate struct {
	name string
	// hurry: operators rotate as soon as they are let, so that the lead and
	// not the schedule decides.
	hurry       bool
	cuts        bool // replicas lose the store, or their targets
	longCuts    bool
	crashes     bool
	stateLoss   bool
	saves       bool // conflicts, late writes, lost replies, stale reads
	targets     bool // lag, full disks, refusals
	revisions   bool
	rollbacks   bool
	revocations bool
	force       bool
	clocks      bool
	restores    bool
	damage      bool
	adoption    bool
	schema      bool
	rolesApart  bool
	single      bool
	lateReplica bool
	drift       bool // files that differ without a higher revision
	unequal     bool // one ring's tokens live much longer than the other's
	lowering    bool // the second revision lowers the outage budget and raises max_token_ttl
}

// simClimates are met in turn.
func simClimates() []simClimate {
	return []simClimate{
		{name: "calm"},
		{name: "hurry", hurry: true, cuts: true, longCuts: true, targets: true},
		{name: "revisions", hurry: true, cuts: true, longCuts: true, revisions: true, drift: true},
		{name: "lowering", hurry: true, longCuts: true, revisions: true, lowering: true},
		{name: "unequal", hurry: true, longCuts: true, unequal: true},
		{name: "races", hurry: true, saves: true, crashes: true, rollbacks: true},
		{name: "restores", saves: true, crashes: true, restores: true, revocations: true},
		{name: "emergency", cuts: true, longCuts: true, revocations: true, force: true, rollbacks: true, saves: true, lateReplica: true},
		{name: "clocks", hurry: true, cuts: true, clocks: true, crashes: true, targets: true},
		{name: "damage", cuts: true, damage: true, crashes: true, hurry: true, targets: true},
		{name: "rollbacks", cuts: true, longCuts: true, rollbacks: true, revisions: true, crashes: true},
		{name: "adoption", adoption: true, cuts: true, hurry: true, revocations: true, revisions: true},
		{name: "apart", rolesApart: true, cuts: true, longCuts: true, hurry: true, saves: true, targets: true},
		{name: "single", single: true, crashes: true, hurry: true, saves: true, rollbacks: true, revisions: true},
		{name: "newer", schema: true, saves: true, crashes: true, cuts: true, stateLoss: true, lateReplica: true},
		{name: "storm", hurry: true, cuts: true, crashes: true, saves: true, targets: true, revisions: true, rollbacks: true,
			revocations: true, damage: true, clocks: true, drift: true, stateLoss: true, lateReplica: true},
	}
}

func simSeconds(n int) keyring.Duration { return keyring.Duration(time.Duration(n) * time.Second) }

// drawFiles draws the revisions of the file that the walk goes through. Each
// is one that keyturn would load.
func (w *simWorld) drawFiles() {
	revisions := 1
	if w.climate.revisions {
		revisions = 2 + w.chance.pick(2)
	}
	if w.climate.adoption {
		w.adopted = []keyring.JWK{w.keys.next(keyring.EdDSA)}
		w.adoptUntil = simEpoch.Add(w.chance.duration(400*time.Second, 1200*time.Second))
	}
	kinds := w.drawKinds()
	if w.climate.lowering {
		revisions = 2
	}
	for len(w.files) < revisions {
		f := w.drawFile(int64(len(w.files)+1), kinds)
		if len(w.files) > 0 && w.chance.one(2) { // mostly one thing changes
			f = w.alter(w.files[len(w.files)-1].Clone())
		}
		if w.climate.lowering {
			f = w.lower(f)
		}
		if w.climate.unequal {
			f.OutageBudget, f.Rings = simSeconds(100), []keyring.Ring{simRing("a", 10), simRing("b", 300)}
		}
		gaps := map[string]time.Duration{}
		for _, r := range f.Rings {
			gaps[r.Name] = w.keys.pool.gap(r.Rotate)
		}
		f = f.Resolve(gaps)
		if f.Check(gaps) == nil {
			w.files = append(w.files, f)
		}
	}
}

// drawKinds are the targets that the issuer has through the whole walk, so
// that a revision changes some of them and not the world.
func (w *simWorld) drawKinds() []keyring.Target {
	var all []keyring.Target
	shared := keyring.Target{Name: "bucket", Kind: keyring.TargetBucket, Required: true}
	confirm := keyring.Target{Name: "https://cdn", Kind: keyring.TargetConfirm, Required: true}
	http := keyring.Target{Name: "endpoint", Kind: keyring.TargetHTTP, Required: true}
	file := keyring.Target{Name: "file", Kind: keyring.TargetFile, Required: true}
	switch w.chance.pick(5) {
	case 0:
		all = []keyring.Target{shared}
	case 1:
		all = []keyring.Target{http}
	case 2:
		all = []keyring.Target{http, file}
	case 3:
		all = []keyring.Target{shared, confirm}
	case 4:
		all = []keyring.Target{shared, http}
	}
	if w.climate.lowering || w.climate.unequal {
		all = []keyring.Target{http}
	}
	if w.climate.rolesApart {
		all = []keyring.Target{shared, http}
	}
	if w.climate.single {
		all = []keyring.Target{simPick(w.chance, http, file)}
	}
	if w.climate.adoption {
		for i := range all {
			all[i].AdoptUntil = w.adoptUntil
		}
	}
	return all
}

func (w *simWorld) drawFile(revision int64, targets []keyring.Target) keyring.Config {
	c := keyring.Config{
		Name: "main", URL: "https://t.example", Revision: revision,
		ConsumerCache: keyring.Duration(simC), JWKSMaxAge: simSeconds(20), Leeway: keyring.Duration(simLambda), ClockSkew: keyring.Duration(simE),
		SyncInterval: keyring.Duration(simSync), OutageBudget: w.drawBudget(), MaxKeys: 100,
		Targets: slices.Clone(targets), SingleProcess: w.climate.single,
	}
	names := simPick(w.chance, []string{"a"}, []string{"a", "b"}, []string{"a", "b"})
	if w.climate.revisions && w.chance.one(4) {
		names = simPick(w.chance, []string{"b"}, []string{"a", "b", "c"}, []string{"a", "c"})
	}
	for i, name := range names {
		ttl := simPick(w.chance, 30, 60, 120)
		if i > 0 && w.chance.one(2) { // the issuer's largest is not the one of every ring
			ttl = 120
			c.Rings[0].MaxTokenTTL = simSeconds(30)
		}
		c.Rings = append(c.Rings, keyring.Ring{
			Name: name, Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: w.drawSchedule(), MaxTokenTTL: simSeconds(ttl),
		})
	}
	return c
}

// drawSchedule leaves room for a long outage budget where that is to change.
func (w *simWorld) drawSchedule() string {
	if w.climate.revisions {
		return simPick(w.chance, "@every 900s", "*/20 * * * *")
	}
	return simPick(w.chance, "@every 600s", "@every 660s", "*/10 * * * *")
}

// drawBudget also draws some that the solver refuses, and none, which it derives.
func (w *simWorld) drawBudget() keyring.Duration {
	if w.chance.one(16) {
		return simSeconds(simPick(w.chance, 0, 500, 7))
	}
	if w.climate.revisions {
		return simSeconds(simPick(w.chance, 100, 400))
	}
	return simSeconds(simPick(w.chance, 100, 120, 180))
}

func simRing(name string, ttl int) keyring.Ring {
	return keyring.Ring{Name: name, Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: "@every 660s", MaxTokenTTL: simSeconds(ttl)}
}

// lower makes the first revision's outage budget long and the second's short.
func (w *simWorld) lower(f keyring.Config) keyring.Config {
	f.OutageBudget = simSeconds(400)
	if len(w.files) > 0 {
		f = w.files[0].Clone()
		f.Revision, f.OutageBudget = 2, simSeconds(100)
	}
	for i := range f.Rings { // tokens of the second live longer, whose keys may be of the first
		f.Rings[i].MaxTokenTTL = simSeconds(10 + 110*len(w.files))
	}
	return f
}

// alter is the next revision of a file that differs in one thing.
func (w *simWorld) alter(c keyring.Config) keyring.Config {
	c.Revision++
	switch w.chance.pick(17) {
	case 0, 10, 11, 12, 13:
		c.OutageBudget = w.drawBudget()
	case 1:
		c.Rings[0].MaxTokenTTL = simSeconds(simPick(w.chance, 10, 30, 120))
	case 2:
		c.Leeway = simSeconds(simPick(w.chance, 1, 10, 30))
	case 3:
		c.ConsumerCache = simSeconds(simPick(w.chance, 20, 40, 60))
	case 4, 14, 15:
		i := w.chance.pick(len(c.Rings))
		c.Rings[i].Algorithm, c.Rings[i].RSABits = simPick(w.chance, keyring.ES256, keyring.ES384, keyring.ES512), 0
		if w.chance.one(3) {
			c.Rings[i].Algorithm, c.Rings[i].RSABits = keyring.RS256, 2048
		}
	case 5:
		c.SyncInterval = simSeconds(simPick(w.chance, 10, 20, 25))
	case 16:
		c.Targets[w.chance.pick(len(c.Targets))].View = simPick(w.chance, keyring.ViewKubernetes, keyring.ViewSPIFFE, keyring.ViewAll)
	case 6:
		c.Targets[w.chance.pick(len(c.Targets))].Required = w.chance.one(2)
	case 7:
		if len(c.Rings) > 1 {
			i := w.chance.pick(len(c.Rings))
			c.Rings = slices.Delete(c.Rings, i, i+1)
		}
	case 8: // the clocks themselves stay within the lesser
		c.ClockSkew = simPick(w.chance, keyring.Duration(simE), simSeconds(30))
	case 9:
		name := simPick(w.chance, "a", "b", "c")
		if _, ok := c.Ring(name); !ok {
			c.Rings = append(c.Rings, keyring.Ring{Name: name, Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: w.drawSchedule(), MaxTokenTTL: simSeconds(simPick(w.chance, 30, 120))})
		}
	}
	return c
}
