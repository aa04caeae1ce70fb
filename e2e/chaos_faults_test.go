package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
)

// dies says that a replica's daemon stops answering now: its host is found out
// within S, or when its file's time is over, if it had not heard of Vault.
func (c *chaos) dies(r *replica) *spell {
	now := time.Now()
	until := now.Add(r.now().span())
	if serve, err := servedUntil(r); !c.weather.fresh(r.index, now) && (err != nil || serve.Before(until)) {
		until = serve
	}
	s := c.weather.begin(down, r.index)
	r.health.dies(until)
	return s
}

// servedUntil is how long the daemon itself would leave the file there.
func servedUntil(r *replica) (time.Time, error) {
	doc, err := os.ReadFile(r.path("www/jwks.json.keyturn"))
	if err != nil {
		return time.Time{}, err
	}
	var side struct {
		Sets []struct {
			ServeUntil time.Time `json:"serve_until"`
		}
	}
	if err := json.Unmarshal(doc, &side); err != nil || len(side.Sets) == 0 {
		return time.Time{}, errors.Join(err, errors.New("no set"))
	}
	return side.Sets[0].ServeUntil, nil // of two, the older one may be there
}

// awaitBack ends a spell when the replica signs again, or another process has
// taken its place.
func (c *chaos) awaitBack(r *replica, s *spell) {
	defer s.over()
	life, began := r.life(), time.Now()
	for c.pause(50 * time.Millisecond) {
		if r.life() != life {
			return
		}
		_, web := r.daemon(c.t).token(ask("web"))
		_, api := r.daemon(c.t).token(ask("api"))
		if web == nil && api == nil {
			c.ledger.most("longest way back of a replica, in ms", time.Since(began))
			return
		}
		if time.Since(began) > wellWithin+stormLength {
			c.ledger.fail("no recovery", "replica %d does not sign again: %v", r.index, errors.Join(web, api))
			return
		}
	}
}

func (c *chaos) backAgain(r *replica, s *spell) {
	c.askers.Go(func() { c.awaitBack(r, s) })
}

func (c *chaos) killReplica(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.process.TryLock() {
		return false
	}
	defer r.process.Unlock()
	c.ledger.note("replica %d: kill -9, back in %s", r.index, tr.hold)
	s := c.dies(r)
	r.kill()
	return c.restart(r, s, tr.hold)
}

// restart is the rest of whatever ended a process.
func (c *chaos) restart(r *replica, s *spell, after time.Duration) bool {
	c.pause(after)
	if err := r.start(); err != nil {
		c.ledger.fail("harness", "replica %d: %v", r.index, err)
	}
	c.ledger.note("replica %d: started", r.index)
	c.backAgain(r, s)
	return true
}

func (c *chaos) termReplica(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.process.TryLock() {
		return false
	}
	defer r.process.Unlock()
	c.ledger.note("replica %d: SIGTERM, back in %s", r.index, tr.hold)
	return c.restart(r, c.term(r), tr.hold)
}

// term ends a daemon as an operator does. One that has not got as far as to
// open its sockets may not know the signal yet.
func (c *chaos) term(r *replica) *spell {
	s := c.dies(r)
	for range 100 {
		if _, err := r.daemon(c.t).issuers(); err == nil {
			break
		}
		c.pause(100 * time.Millisecond)
	}
	if err := r.stop(); err != nil {
		c.ledger.fail("process", "replica %d after SIGTERM: %v; see %s", r.index, err, r.path("log"))
	}
	return s
}

func (c *chaos) stopReplica(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.process.TryLock() {
		return false
	}
	defer r.process.Unlock()
	c.ledger.note("replica %d: SIGSTOP for %s", r.index, tr.hold)
	s := c.dies(r)
	r.signal(syscall.SIGSTOP)
	c.pause(tr.hold)
	r.goesOn()
	c.ledger.note("replica %d: SIGCONT", r.index)
	c.backAgain(r, s)
	return true
}

func (c *chaos) loseState(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.process.TryLock() {
		return false
	}
	defer r.process.Unlock()
	c.ledger.note("replica %d: kill -9, its state_dir is lost, back in %s", r.index, tr.hold)
	s := c.dies(r)
	r.kill()
	if err := os.RemoveAll(r.path("state")); err != nil {
		c.ledger.fail("harness", "%v", err)
	}
	return c.restart(r, s, tr.hold)
}

// roll brings a higher revision to one replica after the other: another T, the
// third ring or no more of it, or both.
func (c *chaos) roll(tr trouble) bool {
	if !c.rolling.TryLock() {
		return false
	}
	defer c.rolling.Unlock()
	next := c.replicas[0].now()
	next.number++
	if tr.dice%3 != 0 {
		next.ttl = 5*time.Second - next.ttl // 2s or 3s
	}
	if tr.dice%3 != 1 {
		next.extra = !next.extra
	}
	c.ledger.note("revision %d: T %s, rings %v", next.number, next.ttl, next.rings())
	s := c.weather.begin(rolling, everywhere)
	defer s.over()
	for i := range c.replicas {
		r := c.replicas[(tr.replica+i)%len(c.replicas)]
		r.process.Lock()
		down := c.term(r)
		r.setRevision(next)
		c.restart(r, down, 0)
		r.process.Unlock()
		c.pause(tr.hold)
	}
	return true
}

func (c *chaos) editFile(tr trouble) bool {
	return c.spoilFile(tr, "edited", func(path string) error {
		doc, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		edits := [][]byte{append(doc, '\n'), doc[:len(doc)/2], []byte(`{"keys":[]}` + "\n")}
		if err := os.WriteFile(path+".by-hand", edits[int(tr.dice)%len(edits)], 0o644); err != nil {
			return err
		}
		return os.Rename(path+".by-hand", path)
	})
}

func (c *chaos) removeFile(tr trouble) bool { return c.spoilFile(tr, "removed", os.Remove) }

// spoilFile wants keyturn to repair what somebody did, as soon as it can.
func (c *chaos) spoilFile(tr trouble, what string, do func(path string) error) bool {
	p := c.places[len(c.replicas)+tr.replica]
	s := c.weather.begin(noFile, tr.replica)
	defer s.over()
	if err := do(p.replica.path("www/jwks.json")); err != nil {
		return false // it is away, or somebody was faster
	}
	c.ledger.note("%s: %s by hand", p.name, what)
	began := time.Now()
	for c.pause(10 * time.Millisecond) {
		_, _, err := p.fetch()
		if err == nil {
			c.ledger.most("longest until a file was repaired, in ms", time.Since(began))
			return true
		}
		now := time.Now()
		if c.weather.mayNotServe(tr.replica, began, now, 0) {
			began = now // first it has to be able to
		}
		if now.Sub(began) > 10*time.Second {
			c.ledger.fail("not repaired", "%s: %s by hand: %v", p.name, what, err)
			return true
		}
	}
	return true
}

func (c *chaos) hideDirectory(tr trouble) bool {
	r := c.replicas[tr.replica]
	s := c.weather.begin(noFile, tr.replica)
	if err := os.Rename(r.path("www"), r.path("www.away")); err != nil {
		s.over()
		return false
	}
	c.ledger.note("replica %d: its directory is away for %s", r.index, tr.hold)
	c.pause(tr.hold)
	if err := os.Rename(r.path("www.away"), r.path("www")); err != nil {
		c.ledger.fail("harness", "%v", err)
	}
	c.fileBack(r, s)
	return true
}

// lockDirectory holds the lock of the published file, as a writer that hangs.
func (c *chaos) lockDirectory(tr trouble) bool {
	r := c.replicas[tr.replica]
	f, err := os.OpenFile(r.path("www/jwks.json.keyturn.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	s := c.weather.begin(noFile, tr.replica)
	for syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if !c.pause(time.Millisecond) {
			s.over()
			return false
		}
	}
	c.ledger.note("replica %d: its file is locked for %s", r.index, tr.hold)
	c.pause(tr.hold)
	_ = f.Close() // which gives the lock up
	c.fileBack(r, s)
	return true
}

// fileBack ends a spell when the file is there again.
func (c *chaos) fileBack(r *replica, s *spell) {
	c.askers.Go(func() {
		defer s.over()
		p := c.places[len(c.replicas)+r.index]
		for began := time.Now(); c.pause(50*time.Millisecond) && time.Since(began) < wellWithin; {
			if _, _, err := p.fetch(); err == nil && r.health.inService(time.Now()) {
				return
			}
		}
	})
}

// rotateTwice asks two replicas, one after the other, to rotate a ring now. A
// standby that is not proven yet is not to be taken.
func (c *chaos) rotateTwice(tr trouble) bool {
	rings := c.replicas[0].now().rings()
	ring := rings[int(tr.dice)%len(rings)]
	for i := range 2 {
		r := c.replicas[(tr.replica+i)%len(c.replicas)]
		client := overUnix(r.admin)
		client.Timeout = 20 * time.Second
		var out api.RotateResponse
		err := call(client, http.MethodPost, "http://keyturn/v1/rings/"+ring+"/rotate", []byte(`{"reason":"chaos"}`), &out)
		var p *api.Problem
		answer := "not answered"
		switch {
		case err == nil:
			answer = "done"
		case errors.As(err, &p):
			answer = string(p.Code)
		}
		c.ledger.count("keyturn rotate: " + answer)
		c.ledger.note("replica %d: rotate %s: %s %s", r.index, ring, answer, fmt.Sprint(out.ActiveKid))
	}
	return true
}
