package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// replicaSites are sites of one issuer on a mount of their own, whose every
// version is kept.
func replicaSites(t *testing.T, n int) []*vaultSite {
	t.Helper()
	server := sharedVault(t)
	mount := server.Unique("several")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
	var sites []*vaultSite
	for i := range n {
		s := newVaultSite(t, server, mount, "all")
		sites = append(sites, s)
		if i > 0 { // one issuer, whoever serves it
			s.edit("url: http://"+s.public, "url: http://"+sites[0].public)
		}
	}
	return sites
}

// watched starts traffic at daemons, which are replicas of each other.
func watched(t *testing.T, daemons ...*daemon) *traffic {
	t.Helper()
	tr := &traffic{t: t, cache: vaultCache}
	for i, d := range daemons {
		tr.endpoints = append(tr.endpoints, d.jwksURL())
		tr.callers = append(tr.callers, caller{fmt.Sprint("replica ", i), d, ask("web")})
	}
	return startTraffic(tr)
}

// TestFaultDueTogether: three replicas write at the very same instant, when
// they found the issuer and when a rotation is due. One of them wins, the others
// take note of it, and all go on with one standby.
// (TestVaultReplicas has them wait for Vault together, and sweeps what the losers left.)
func TestFaultDueTogether(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 3)
	var gate gate
	for _, s := range sites {
		gate = append(gate, s.counted())
	}
	gate.hold()
	var daemons []*daemon
	for _, s := range sites {
		daemons = append(daemons, s.run())
	}
	gate.open(t, 20*time.Second)
	for _, d := range daemons {
		d.canSign(30*time.Second, "web")
	}
	root := newSecrets(sites[0], "main")
	agree(t, daemons, root)
	tr := watched(t, daemons...)
	daemons[0].standby(40*time.Second, "web")
	before, due := tr.signer("replica 0"), nextRotation(t, daemons[0])
	time.Sleep(time.Until(due.Add(-200 * time.Millisecond)))
	gate.hold()
	gate.open(t, 10*time.Second)
	within(t, 15*time.Second, "the rotation", func() error {
		for i := range daemons {
			if kid := tr.signer(fmt.Sprint("replica ", i)); kid == before {
				return fmt.Errorf("%s signs for replica %d", kid, i)
			}
		}
		return nil
	})
	agree(t, daemons, root)
	for _, d := range daemons {
		d.reason(15*time.Second, "ok", "", "")
	}
	tr.end()
	losersAreCalm(t, daemons)
	for _, d := range daemons {
		d.stop()
	}
	oneChain(t, sites[0])
	m, _ := sites[0].manifest("main", 0)
	if got := m.activated("web"); len(got) != 2 {
		t.Errorf("keys %v were active, want two", got)
	}
}

// gate has several replicas write at the same instant.
type gate []*vaulttest.Proxy

// hold keeps the next write of each.
func (g gate) hold() {
	for _, p := range g {
		p.Next(writesManifest, vaulttest.Hold)
	}
}

// open lets go when each has its write before Vault.
func (g gate) open(t *testing.T, limit time.Duration) {
	t.Helper()
	within(t, limit, "a write of each at once", func() error {
		for i, p := range g {
			if p.Held() != 1 {
				return fmt.Errorf("replica %d has none", i)
			}
		}
		return nil
	})
	for _, p := range g {
		p.Release()
	}
}

// losersAreCalm: who lost a race says so and makes no more of it.
func losersAreCalm(t *testing.T, daemons []*daemon) {
	t.Helper()
	lost, turned := 0, 0
	for i, d := range daemons {
		turned += d.rotations("web")
		if line := d.metric("keyturn_store_errors_total{"); line != "" {
			t.Errorf("replica %d counts trouble: %s", i, line)
		}
		for line := range strings.Lines(d.out.String()) {
			var said struct{ Level, Msg string }
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Errorf("replica %d printed %q", i, line)
				continue
			}
			if said.Msg == "another replica wrote first" {
				lost++
			}
			if said.Level != "INFO" && said.Level != "DEBUG" {
				t.Errorf("replica %d: %s", i, line)
			}
		}
	}
	if lost < 4 { // two at the founding, two at the rotation
		t.Errorf("%d races lost", lost)
	}
	if turned != 2 { // the first activation is one
		t.Errorf("%d rotations counted by all together", turned)
	}
}

// TestFaultCutOff: one of three replicas hears nothing of Vault any more. It
// signs to the end of the lease that it knew and serves to the end of its tail;
// the others rotate meanwhile; when it hears again it is one of them.
func TestFaultCutOff(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 3)
	w, _ := sites[2].wired()
	var daemons []*daemon
	for _, s := range sites {
		daemons = append(daemons, s.start("web"))
	}
	off := daemons[2]
	off.reason(15*time.Second, "ok", "", "")
	tr := watched(t, daemons[:2]...)
	due := nextRotation(t, off)
	time.Sleep(time.Until(due.Add(-5 * time.Second)))
	kid := tr.signer("replica 0")

	w.poison("timeout", map[string]any{"timeout": 0})
	off.reason(15*time.Second, "degraded", "store_unavailable", "")
	off.alarmed("store_unavailable", true)
	known, _ := sites[2].manifest("main", off.generation(t))
	last := off.signsUntil(t, known.Lease)
	if last.Kid != kid {
		t.Errorf("cut off, it signs with %s, and knew %s", last.Kid, kid)
	}
	for i, d := range daemons[:2] { // which have turned since
		if err := verifyWith(d.jwksURL(), last.Token, "demo"); err != nil {
			t.Errorf("its last token at replica %d: %v", i, err)
		}
	}
	if now := tr.signer("replica 0"); now == kid {
		t.Errorf("%s still signs at the others", now)
	}
	off.servesUntil(t, known.Lease.Add(vaultTail), sites[2].path("jwks.json"))
	if newest, _ := sites[0].manifest("main", 0); !newest.Lease.After(known.Lease.Add(vaultTail)) {
		t.Errorf("the others have a lease until %s, the one cut off had %s", newest.Lease, known.Lease)
	}
	w.heal()
	off.canSign(30*time.Second, "web")
	off.reason(15*time.Second, "ok", "", "")
	agree(t, daemons, newSecrets(sites[0], "main"))
	tr.end()
	for _, d := range daemons {
		d.stop()
	}
	oneChain(t, sites[0])
}

// generation is what the daemon acts on.
func (d *daemon) generation(t *testing.T) int {
	t.Helper()
	var n int
	line := d.metric(`keyturn_manifest_generation{issuer="main"}`)
	if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
		t.Fatalf("generation %q: %v", line, err)
	}
	return n
}

// TestFaultStopped: a replica is stopped (SIGSTOP) with a write on its way,
// through a rotation and the end of its lease. Its late write changes nothing,
// and who waited for a token all the time gets none that the lease did not cover.
func TestFaultStopped(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 2)
	proxy := sites[1].counted()
	daemons := []*daemon{sites[0].start("web"), sites[1].start("web")}
	stopped := daemons[1]
	stopped.reason(15*time.Second, "ok", "", "")
	stopped.standby(40*time.Second, "web")
	tr := watched(t, daemons[0])
	kid := tr.signer("replica 0")

	late := &lateWrite{}
	proxy.Decide(late.decide)
	within(t, 20*time.Second, "a write of the one that is to stop", func() error {
		if proxy.Held() == 0 {
			return errors.New("none")
		}
		return nil
	})
	must(t, stopped.cmd.Process.Signal(syscall.SIGSTOP))
	halted := time.Now()
	resumed := false
	resume := func() {
		if !resumed {
			must(t, stopped.cmd.Process.Signal(syscall.SIGCONT))
			resumed = true
		}
	}
	defer resume()
	waiting := queue(t, stopped, 12)
	// The others turn, and the time passes in which anybody may still sign with
	// the key that the stopped one holds.
	within(t, 60*time.Second, "a rotation, and the end of the old key's lease", func() error {
		until := sites[0].signUntil(kid)
		if now := tr.signer("replica 0"); now == kid || time.Now().Before(until.Add(time.Second)) {
			return fmt.Errorf("%s signs, and %s might until %s", now, kid, until)
		}
		return nil
	})
	late.arrives(t, proxy)
	t.Logf("stopped for %s", time.Since(halted).Round(time.Millisecond))
	resume()
	signed := lateTokens(t, sites[0], waiting)
	stopped.canSign(20*time.Second, "web")
	stopped.reason(15*time.Second, "ok", "", "")
	t.Logf("of %d who waited %d got a token", len(waiting), signed)
	agree(t, daemons, newSecrets(sites[0], "main"))
	tr.end()
	for _, d := range daemons {
		d.stop()
	}
	oneChain(t, sites[0])
	late.isNowhere(sites[0])
}

// lateWrite holds the first write and lets nothing of the same doer through.
type lateWrite struct {
	id string
	at time.Time
}

func (l *lateWrite) decide(r *http.Request) vaulttest.Fault {
	if l.id != "" || !writesManifest(r) {
		return vaulttest.Pass
	}
	if id, err := writeID(r); err == nil {
		l.id, l.at = id, time.Now()
		return vaulttest.Hold
	}
	return vaulttest.Pass
}

// arrives lets it go and wants Vault to refuse it.
func (l *lateWrite) arrives(t *testing.T, p *vaulttest.Proxy) {
	t.Helper()
	p.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Pass })
	p.Release()
	within(t, 10*time.Second, "Vault's answer to the late write", func() error {
		for _, s := range p.Seen() {
			if s.Verb != http.MethodPut || !strings.HasSuffix(s.Path, "/manifest") || s.At.After(l.at) || s.Done.Sub(s.At) < 5*time.Second {
				continue
			}
			if s.Status != http.StatusBadRequest {
				t.Fatalf("Vault answered the late write with %d", s.Status)
			}
			return nil
		}
		return errors.New("none")
	})
}

// isNowhere: no version of the manifest is it.
func (l *lateWrite) isNowhere(s *vaultSite) {
	s.t.Helper()
	_, last := s.manifest("main", 0)
	for version := 1; version <= last; version++ {
		if m, _ := s.manifest("main", version); m.WriteID == l.id {
			s.t.Errorf("version %d is the late write", version)
		}
	}
}

// signUntil is how long a key may sign as the manifest says now: the lease, or
// what it was when the key retired.
func (s *vaultSite) signUntil(kid string) time.Time {
	s.t.Helper()
	m, _ := s.manifest("main", 0)
	i := slices.IndexFunc(m.Keys, func(k storedKey) bool { return k.JWK.Kid == kid })
	switch {
	case i < 0:
		return time.Time{}
	case m.Keys[i].Retired.IsZero():
		return m.Lease
	}
	return m.Keys[i].SignUntil
}

// queue sends requests to the sign socket of a daemon that takes none now.
func queue(t *testing.T, d *daemon, n int) []net.Conn {
	t.Helper()
	body, err := json.Marshal(ask("web"))
	must(t, err)
	var out []net.Conn
	for range n {
		conn, err := net.Dial("unix", d.sign)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = fmt.Fprintf(conn, "POST /v1/sign HTTP/1.1\r\nHost: keyturn\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		must(t, err)
		out = append(out, conn)
	}
	return out
}

// lateTokens reads the answers: each is a token by a key whose lease covers it,
// or says that there is none. It returns how many tokens there are.
func lateTokens(t *testing.T, s *vaultSite, waiting []net.Conn) int {
	t.Helper()
	signed := 0
	for _, conn := range waiting {
		must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		switch resp.StatusCode {
		case http.StatusOK:
			signed++
			var tok api.SignResponse
			must(t, json.NewDecoder(resp.Body).Decode(&tok))
			until := s.signUntil(tok.Kid)
			if at := signedAt(tok.Token); at.After(until) {
				t.Errorf("%s signed at %s and might until %s", tok.Kid, at, until)
			}
		case http.StatusServiceUnavailable:
			var p api.Problem
			must(t, json.NewDecoder(resp.Body).Decode(&p))
			if p.Code != api.SigningLapsed || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%+v, Retry-After %q", p, resp.Header.Get("Retry-After"))
			}
		default:
			t.Errorf("status %d", resp.StatusCode)
		}
		must(t, resp.Body.Close())
	}
	return signed
}
