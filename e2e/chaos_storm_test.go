package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// trouble is one fault of a storm, all of it drawn beforehand, so that a seed
// makes the same storms again.
type trouble struct {
	at      time.Duration // after the beginning of the storm
	kind    kind
	replica int
	node    int
	hold    time.Duration
	dice    uint32 // for what else there is to choose
}

// kind is a fault of docs/faults.md. do returns when it is over, and reports
// whether it could be done: what it needs may be in use.
type kind struct {
	name        string
	weight      int
	least, most time.Duration // how long it is on
	do          func(*chaos, trouble) bool
}

func kinds() []kind {
	return []kind{
		{"kill -9 and restart of a replica", 4, 0, 4 * time.Second, (*chaos).killReplica},
		{"a replica dead for longer than S", 1, 9 * time.Second, 11 * time.Second, (*chaos).killReplica},
		{"SIGSTOP and SIGCONT of a replica", 3, 500 * time.Millisecond, 5 * time.Second, (*chaos).stopReplica},
		{"SIGSTOP for longer than lease and S", 1, 9 * time.Second, 12 * time.Second, (*chaos).stopReplica},
		{"SIGTERM and restart of a replica", 2, 0, time.Second, (*chaos).termReplica},
		{"state_dir lost", 1, 0, time.Second, (*chaos).loseState},
		{"revision rolls over the replicas", 2, 200 * time.Millisecond, time.Second, (*chaos).roll},
		{"link to Vault cut", 4, 300 * time.Millisecond, 8 * time.Second, (*chaos).cutLink},
		{"link to Vault cut for longer than S", 3, 13 * time.Second, 22 * time.Second, (*chaos).cutLink},
		{"link to Vault half-open", 2, 300 * time.Millisecond, 8 * time.Second, (*chaos).silenceLink},
		{"link to Vault slow", 2, time.Second, 5 * time.Second, (*chaos).delayLink},
		{"replies to writes dropped", 4, 500 * time.Millisecond, 4 * time.Second, (*chaos).dropReplies},
		{"Vault token revoked", 2, 0, 0, (*chaos).revokeToken},
		{"Vault leader steps down", 2, 0, 0, (*chaos).stepDown},
		{"Vault node killed and restarted", 2, 0, 3 * time.Second, (*chaos).killNode},
		{"Vault leader sealed and unsealed", 1, 500 * time.Millisecond, 3 * time.Second, (*chaos).sealLeader},
		{"Vault hangs as a whole", 1, 500 * time.Millisecond, 4 * time.Second, (*chaos).pauseVault},
		{"published file edited by hand", 3, 0, 0, (*chaos).editFile},
		{"published file removed by hand", 1, 0, 0, (*chaos).removeFile},
		{"publish directory away", 1, 500 * time.Millisecond, 4 * time.Second, (*chaos).hideDirectory},
		{"publish directory locked", 2, 500 * time.Millisecond, 9 * time.Second, (*chaos).lockDirectory},
		{"keyturn rotate, twice", 6, 0, 0, (*chaos).rotateTwice},
	}
}

// planStorm draws the faults of one storm.
func planStorm(random *rand.Rand, length time.Duration) []trouble {
	all := kinds()
	weights := 0
	for _, k := range all {
		weights += k.weight
	}
	var out []trouble
	for at := time.Duration(0); at < length; at += 200*time.Millisecond + time.Duration(random.Int64N(int64(1600*time.Millisecond))) {
		pick := random.IntN(weights)
		i := 0
		for ; pick >= all[i].weight; i++ {
			pick -= all[i].weight
		}
		k := all[i]
		out = append(out, trouble{
			at: at, kind: k, replica: random.IntN(3), node: random.IntN(3), dice: random.Uint32(),
			hold: k.least + time.Duration(random.Int64N(int64(k.most-k.least)+1)),
		})
	}
	return out
}

// storm lets the faults happen, each at its time, and returns when all are over.
func (c *chaos) storm(plan []trouble) {
	began := time.Now()
	var all sync.WaitGroup
	for _, tr := range plan {
		if !c.pause(time.Until(began.Add(tr.at))) {
			break
		}
		all.Go(func() {
			if !tr.kind.do(c, tr) {
				c.ledger.count("faults left out, for another was at the same thing")
				return
			}
			c.ledger.count(fmt.Sprintf("fault: %s", tr.kind.name))
		})
	}
	all.Wait()
}
