package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// holder connects, in another user's process, and behaves badly on every
// connection: it says nothing, dribbles a header or a body, asks and never
// reads, or has one answer and keeps the connection, until its input ends.
const holder = `
import select, socket, sys, time
path, manner, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
one = '{"profile":"web","subject":"a","audience":"d"}'
batch = '{"requests":[' + ','.join([one] * 900) + ']}'
begin = {
    "silent": "",
    "header": "POST /v1/sign HTTP/1.1\r\nHost: k\r\nX-Slow: ",
    "body":   "POST /v1/sign HTTP/1.1\r\nHost: k\r\nContent-Length: 60000\r\n\r\n{",
    "batch":  "POST /v1/sign/batch HTTP/1.1\r\nHost: k\r\nContent-Length: 8000000\r\n\r\n{",
    "deaf":   ("POST /v1/sign/batch HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n%s" % (len(batch), batch)) * 4,
    "keeps":  "GET /v1/profiles HTTP/1.1\r\nHost: k\r\n\r\n",
}[manner].encode()
conns = []
for i in range(n):
    s = socket.socket(socket.AF_UNIX if path.startswith("/") else socket.AF_INET)
    try:
        s.connect(path if path.startswith("/") else tuple(path.split(":")))
        s.setblocking(False)
        s.send(begin)
    except OSError:
        pass
    if manner == "keeps":
        select.select([s], [], [], 10)
        s.recv(65536)
    conns.append(s)
print("connected", flush=True)
while not select.select([sys.stdin], [], [], 0.3)[0]:
    if manner in ("header", "body", "batch"):
        for s in conns:
            try:
                s.send(b"1")
            except OSError:
                pass
`

// holds starts a holder and waits until it has connected.
func (u someone) holds(t *testing.T, socket, manner string, n int) (end func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs programs as other users: run it as root")
	}
	cmd := exec.Command("setpriv", "--reuid", strconv.Itoa(u.uid), "--regid", strconv.Itoa(u.gid), "--clear-groups", "--inh-caps=-all", "--no-new-privs",
		"/usr/bin/python3", "-c", holder, socket, manner, strconv.Itoa(n))
	cmd.Env, cmd.Stderr, cmd.Dir = cleanEnv(), os.Stderr, "/"
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	return end
}

// abuseSite is a site on which anybody may sign for himself.
func abuseSite(t *testing.T) *site {
	return newSite(t).edit(`mode: "0660"`, `mode: "0666"`)
}

// files is how many file descriptors the daemon has.
func (d *daemon) files() int {
	d.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	must(d.t, err)
	return len(list)
}

// peakMB is the most memory that the daemon ever had.
func (d *daemon) peakMB() int {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	must(d.t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(d.t, err)
	return kb >> 10
}

// batch asks for two tokens in a batch.
func (d *daemon) batch(profile string) error {
	req, err := json.Marshal(ask(profile))
	if err != nil {
		return err
	}
	var out api.BatchResponse
	if err := call(overUnix(d.sign), "POST", "http://keyturn/v1/sign/batch", fmt.Appendf(nil, `{"requests":[%s,%s]}`, req, req), &out); err != nil {
		return err
	}
	if len(out.Results) != 2 || out.Results[1].SignResponse == nil {
		return fmt.Errorf("answered %+v", out)
	}
	return nil
}

// TestSlowCallers: callers who say nothing, dribble, or do not read hold
// nothing that others need, and lose their connections. Fault 34.
func TestSlowCallers(t *testing.T) {
	t.Parallel()
	s := abuseSite(t)
	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	before := d.files()
	var ends []func()
	for i, manner := range []string{"silent", "header", "body", "batch", "deaf"} {
		end := someone{uid: 4401 + i, gid: 4401}.holds(t, d.sign, manner, 40)
		ends = append(ends, end)
	}
	longest := time.Duration(0) // that a batch took
	for range 10 {
		d.mustToken("web")
		asked := time.Now()
		if err := d.batch("web"); err != nil {
			t.Errorf("a batch beside slow callers: %v", err)
		}
		longest = max(longest, time.Since(asked))
	}
	began := time.Now()
	within(t, time.Minute, "the end of the slow connections", func() error {
		if n := d.conns(t); n > 2 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	t.Logf("a batch took %s at most; they were gone after %s, while their owners live; peak %d MB", longest.Round(time.Millisecond), time.Since(began).Round(time.Second), d.peakMB())
	for _, end := range ends {
		end()
	}
	within(t, 10*time.Second, "as many file descriptors as before", func() error {
		if n := d.files(); n > before+4 { // the runtime may keep some
			return fmt.Errorf("%d, there were %d", n, before)
		}
		return nil
	})
	d.mustToken("web")
	if mb := d.peakMB(); mb > 150 {
		t.Errorf("%d MB at the peak", mb)
	}
}

// TestConnectionsOfOneUser: one user has 64 connections with a request on each
// and no more; whoever connects beyond is told so at once, and others are not
// kept waiting. Where connections are idle, new ones take their place.
func TestConnectionsOfOneUser(t *testing.T) {
	t.Parallel()
	s := abuseSite(t)
	d := s.start("web")
	const most = 64
	many, keeper := someone{uid: 4411, gid: 4411}, someone{uid: 4412, gid: 4412}
	end := many.holds(t, d.sign, "body", 200)
	within(t, 9*time.Second, "as many connections as one may have", func() error { // before they are too slow
		if n := d.conns(t); n != most {
			return fmt.Errorf("%d of 200", n)
		}
		return nil
	})
	if status, body := many.curl(t, d.sign, "/v1/profiles"); status != 429 || !strings.Contains(body, `"code":"rate_limited"`) {
		t.Errorf("one more connection is answered %d %s", status, body)
	}
	d.mustToken("web") // another user
	d.logged(5*time.Second, "connections refused")
	end()

	end = keeper.holds(t, d.sign, "keeps", 150)
	defer end()
	within(t, 10*time.Second, "no more connections than one may have", func() error {
		if n := d.conns(t); n > most+2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if status, body := keeper.curl(t, d.sign, "/v1/profiles"); status != 200 {
		t.Errorf("a new connection beside idle ones is answered %d %s", status, body)
	}
}

// TestFewFileDescriptors: strangers take all connections that a daemon with few
// file descriptors can give. Others still sign, Vault is still read and written,
// and the key set is still published. Fault 34.
func TestFewFileDescriptors(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	s.edit(`mode: "0660"`, `mode: "0666"`)
	const limit = 160
	d := startBinary(t, "/bin/sh", s.daemon(), nil, "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "sh", plain, "run", "--config", s.save())
	d.canSign(40*time.Second, "web")
	before := d.files()
	var ends []func()
	for i, manner := range []string{"header", "body", "silent", "keeps", "deaf", "batch"} {
		end := someone{uid: 4421 + i, gid: 4421}.holds(t, d.sign, manner, 60)
		ends = append(ends, end)
	}
	idle := flock(t, d.public, 300)
	idle = append(idle, flock(t, d.status, 100)...)

	file := func() string {
		text, err := os.ReadFile(s.path("jwks.json"))
		must(t, err)
		return string(text)
	}
	version := func() int { _, v := s.manifest("main", 0); return v }
	stored, written := version(), file()
	var out api.RotateResponse
	must(t, d.order("/v1/rings/web/rotate", api.RotateRequest{Force: true, Reason: "in the midst of an attack"}, &out))
	within(t, 30*time.Second, "a rotation in Vault and in the file", func() error {
		d.mustToken("web") // as another user than those who hold connections
		if v := version(); v == stored {
			return fmt.Errorf("the manifest is at version %d still", v)
		}
		if file() == written {
			return errors.New("the file is the same still")
		}
		return nil
	})
	if n := d.files(); n > limit-20 {
		t.Errorf("%d file descriptors of %d: none is spare for Vault and files", n, limit)
	}
	for _, end := range ends {
		end()
	}
	for _, c := range idle {
		_ = c.Close()
	}
	within(t, 60*time.Second, "recovery", func() error {
		if n := d.files(); n > before+6 {
			return fmt.Errorf("%d file descriptors, there were %d", n, before)
		}
		status, h, err := d.health("/readyz")
		if err != nil || status != 200 || h.Status != "ok" {
			return fmt.Errorf("%d %+v %v", status, h, err)
		}
		return nil
	})
}

// flock connects many times to a TCP listener and says nothing.
func flock(t *testing.T, addr string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		cancel()
		if err != nil { // the kernel's queue is full as well
			break
		}
		conns = append(conns, c)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}
