package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
)

// floodSite is a site whose socket is open to all, with the profile that the
// load generator asks for.
func floodSite(t *testing.T) *site {
	return newSite(t).edit(`mode: "0660"`, `mode: "0666", connections_per_user: 160`).edit("@every 10s", "@every 1h").edit("max_token_ttl: 10s", "max_token_ttl: 5m").
		edit("audit: {", `  - {name: es256, ring: web, allow: [{uid: 4301}, {uid: 4302}], subject: {pattern: "^user-[0-9]+$"}, audiences: ["*"], claims: {allow: ["*"]}}
audit: {`)
}

// loader is the load generator of `make bench`, as a program that anybody may run.
func loader(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs a load as other users: run it as root")
	}
	path := filepath.Join(t.TempDir(), "bench")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./bench")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the load generator: %v\n%s", err, out)
	}
	return path
}

// loading is a load of one user's, in a process of its own.
type loading struct {
	t   *testing.T
	cmd *exec.Cmd
	out bytes.Buffer
}

func startLoad(t *testing.T, program, socket string, uid, conns int, more ...string) *loading {
	t.Helper()
	l := &loading{t: t}
	l.cmd = exec.Command(program, append([]string{"load", "-socket", socket, "-uid", strconv.Itoa(uid), "-c", strconv.Itoa(conns), "-verify", "0", "-tolerate", "-json"}, more...)...)
	l.cmd.Stdout, l.cmd.Stderr, l.cmd.Env = &l.out, os.Stderr, cleanEnv()
	must(t, l.cmd.Start())
	t.Cleanup(func() { _ = l.cmd.Process.Kill(); _ = l.cmd.Wait() }) // it has ended already, if the test got there
	return l
}

// done waits for the end of the load.
func (l *loading) done() load.Result {
	l.t.Helper()
	var r load.Result
	must(l.t, l.cmd.Wait())
	must(l.t, json.Unmarshal(l.out.Bytes(), &r))
	if r.Tokens == 0 {
		l.t.Fatalf("the load got no token: %+v", r)
	}
	return r
}

// TestOneUserFloods: while one user asks on 128 connections as fast as
// he can, another one's requests take a small multiple of what they take when
// he is alone. Fault 35. The bounds are wide, and the best of some tries counts,
// for the machine has other work; without turns all tries are far beyond them.
func TestOneUserFloods(t *testing.T) {
	s, program := floodSite(t), loader(t)
	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	const calmUID, floodUID, mid, tail = 4301, 4302, 6, 10 // times
	var said []string
	for range 4 {
		alone := startLoad(t, program, d.sign, calmUID, 2, "-rate", "300", "-warmup", "300ms", "-d", "2s").done()
		flood := startLoad(t, program, d.sign, floodUID, 128, "-warmup", "100ms", "-d", "4s")
		within(t, 10*time.Second, "the flood", func() error {
			if waiting := d.conns(t); waiting < 120 {
				return fmt.Errorf("%d connections", waiting)
			}
			return nil
		})
		beside := startLoad(t, program, d.sign, calmUID, 2, "-rate", "300", "-warmup", "300ms", "-d", "2s").done()
		flooded := flood.done()
		said = append(said, fmt.Sprintf("alone p50 %s p99 %s, beside %.0f tokens/s of another user p50 %s p99 %s, %d refused",
			alone.P50, alone.P99, flooded.Rate(), beside.P50, beside.P99, beside.Refused))
		t.Log(said[len(said)-1])
		if beside.Refused > 0 {
			t.Error("who does not flood was refused")
		}
		if beside.P50 <= mid*alone.P50 && beside.P99 <= tail*alone.P99 {
			return
		}
	}
	t.Errorf("whoever floods makes others wait more than %d times as long (%d at p99), in each of %d tries: %q", mid, tail, len(said), said)
}

// conns is how many connections to its sign socket the daemon holds, by the
// kernel's list of sockets.
func (d *daemon) conns(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadFile("/proc/net/unix")
	must(t, err)
	for line := range bytes.Lines(list) {
		// Flags 0: not listening; state 03: connected.
		if f := bytes.Fields(line); len(f) == 8 && string(f[7]) == d.sign && string(f[5]) == "03" {
			n++
		}
	}
	return n
}
