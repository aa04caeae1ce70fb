package e2e

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// provoke is what the binary of these tests does beyond the product, in the
// midst of a signature: every 50th panics where a server recovers; after
// CANARY_END of them a goroutine panics that nobody recovers; and where
// CANARY_SINGS says so, the first is told.
const provoke = `
var signatures atomic.Int64

func provoke(k *Key) {
	n := signatures.Add(1)
	if n == 1 && os.Getenv("CANARY_SINGS") != "" {
		der, _ := k.pkcs8()
		fmt.Fprintf(os.Stderr, "%x\n", der[len(der)/2:])
		fmt.Fprintf(os.Stderr, "%x\n", der[:len(der)/2])
	}
	if end, _ := strconv.ParseInt(os.Getenv("CANARY_END"), 10, 64); end > 0 && n == end {
		go func() { panic(fmt.Sprintf("provoked by %v %+v %#v", k, *k, k)) }()
	}
	if n%50 == 0 {
		panic(fmt.Sprintf("provoked by %v %+v %#v", k, *k, k))
	}
}
`

var canaryBuild struct {
	once sync.Once
	path string
	err  error
}

// canaryBinary is keyturn with provoke, built from the present source by the
// first test that wants it. It lies beside keyturn, and goes with it.
func canaryBinary(t *testing.T) string {
	t.Helper()
	b := &canaryBuild
	b.once.Do(func() {
		const (
			file = "../custody/internal/half/key.go"
			sign = "\tsig, err := k.sign(digest, opts)\n"
		)
		source, err := os.ReadFile(file)
		must(t, err)
		text := strings.Replace(string(source), sign, "\tprovoke(k)\n"+sign, 1)
		text = strings.Replace(text, "import (\n", "import (\n\t\"os\"\n\t\"strconv\"\n\t\"sync/atomic\"\n", 1)
		if len(text) < len(source)+40 {
			t.Fatalf("%s has changed: let this test know where a signature is made", file)
		}
		dir := t.TempDir()
		patched := filepath.Join(dir, "key.go")
		must(t, os.WriteFile(patched, []byte(text+provoke), 0o600))
		overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{must1(filepath.Abs(file))(t): patched}})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
		b.path = filepath.Join(filepath.Dir(keyturn), "canary")
		build := exec.Command("go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", b.path, "./cmd/keyturn")
		build.Dir, build.Env = "..", append(os.Environ(), "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if b.err != nil {
		t.Fatalf("build keyturn with what provokes it: %v", b.err)
	}
	return b.path
}

// aviary is a site with a ring of each kind of key, whose daemon tells all that
// it can.
type aviary struct {
	*site
	c     *canaries
	rings []string
	mu    sync.Mutex
	docs  map[string][]byte
}

func newAviary(t *testing.T) *aviary {
	t.Helper()
	s := newSite(t).edit("level: info", "level: debug").edit("@every 10s", "@every 1h")
	a := &aviary{site: s, c: &canaries{t: t, keys: map[string]crypto.Signer{}}, rings: []string{"web"}, docs: map[string][]byte{}}
	for ring, alg := range map[string]string{"rsa": "PS256, rsa_bits: 2048", "large": "ES512", "ed": "EdDSA"} {
		a.rings = append(a.rings, ring)
		s.edit("profiles:\n", "  - {name: "+ring+", issuer: main, algorithm: "+alg+", rotate: \"@every 1h\", max_token_ttl: 10s}\nprofiles:\n")
		s.edit("audit: {", "  - {name: "+ring+", ring: "+ring+", allow: [{socket: default}], subject: {pattern: \".+\"}, audiences: [\"*\"]}\naudit: {")
	}
	must(t, os.Mkdir(s.path("tmp"), 0o700))
	return a
}

// release starts a daemon that may leave cores, and traces of all goroutines.
func (a *aviary) release(binary string, env ...string) *daemon {
	a.t.Helper()
	env = append(env, "GOTRACEBACK=crash", "TMPDIR="+a.path("tmp"))
	d := startBinary(a.t, "sh", a.daemon(), env, "-c", `cd "$1" && ulimit -c unlimited && exec "$2" run --config "$3"`, "sh", a.path("tmp"), binary, a.save())
	for _, ring := range a.rings {
		d.canSign(60*time.Second, ring)
	}
	return d
}

// collect opens the halves of all keys that there are.
func (a *aviary) collect() {
	a.t.Helper()
	files, err := filepath.Glob(a.path("custody/issuers/main/keys/*.sealed"))
	must(a.t, err)
	for _, f := range files {
		kid := strings.TrimSuffix(filepath.Base(f), ".sealed")
		if a.c.keys[kid] == nil {
			_, a.c.keys[kid] = a.sealedHalf(f)
		}
	}
}

func (a *aviary) keep(name string, doc []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.docs[name] = append(append(a.docs[name], doc...), '\n')
}

// busy asks for tokens, good and bad, until the daemon has gone or the returned
// func is called.
func (a *aviary) busy(d *daemon) func() {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, ring := range a.rings {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				req := ask(ring)
				if i%7 == 3 {
					req.Claims = map[string]json.RawMessage{"kid": json.RawMessage(`"x"`), "x": json.RawMessage(`1e999`)}
				}
				out, err := d.token(req)
				if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				a.keep("answers of "+ring, fmt.Appendf(nil, "%+v %v", out, err))
			}
		})
	}
	return func() { close(stop); wg.Wait() }
}

// TestCanary: the private halves of a daemon that is worked, broken, reloaded,
// provoked to panic and killed are in their sealed files, and nowhere else.
func TestCanary(t *testing.T) {
	t.Parallel()
	a := newAviary(t)
	d := a.release(canaryBinary(t))
	a.collect()
	calm := a.busy(d)
	d.standby(20*time.Second, "web")
	standby := d.standby(20*time.Second, "rsa")
	a.keep("rotate", []byte(d.ok("rotate", "web", "--yes")+d.ok("rotate", "ed", "--dry-run")))
	must(t, os.WriteFile(a.path("www/jwks.json"), []byte(`{"keys":[]}`), 0o644))
	good := a.text
	a.edit("ring: rsa,", "rinf: rsa,").reload(d)
	a.text = good
	a.edit(`subject: {pattern: ".+"}`, `subject: {pattern: ".*"}`).reload(d)
	a.collect()
	for name, doc := range d.answers() {
		a.keep(name, doc)
	}
	a.keep("/proc", []byte(d.seenOf()))
	a.keep("status", []byte(d.ok("status", "-o", "yaml")+d.ok("keys", "-o", "json")+d.ok("jwks")))
	within(t, 30*time.Second, "a panic that a server recovers", func() error {
		if !strings.Contains(d.out.String(), "panic serving") && !strings.Contains(d.out.String(), "provoked by [redacted]") {
			return errors.New("none yet")
		}
		return nil
	})
	d.mustSurvive()
	a.collect()
	must(t, d.cmd.Process.Signal(syscall.SIGABRT))
	<-d.exited
	d.cmd = nil
	calm()
	a.keep("the output of the first run", []byte(d.out.String()))

	// Once more, with a half that is damaged, to an end that nobody recovers.
	must(t, os.Truncate(a.path("custody/issuers/main/keys/"+standby.Kid+".sealed"), 60))
	d = a.release(canaryBinary(t), "CANARY_END=400")
	d.logged(20*time.Second, `"msg":"key_damaged"`)
	a.collect()
	calm = a.busy(d)
	select {
	case <-d.exited:
	case <-time.After(60 * time.Second):
		t.Fatal("it outlives a panic")
	}
	d.cmd = nil
	calm()
	wants(t, d.out.String(), "panic: provoked by [redacted] [redacted] [redacted]", "goroutine ")
	a.keep("the output of the second run", []byte(d.out.String()))
	a.searched(8)
}

// mustSurvive waits for a token: a panic in one request ends that request.
func (d *daemon) mustSurvive() {
	d.t.Helper()
	within(d.t, 10*time.Second, "a token after a panic", func() error {
		_, err := d.token(ask("web"))
		return err
	})
}

// seenOf is what others may see of the process: its command line and limits,
// and as root its environment.
func (d *daemon) seenOf() string {
	var b strings.Builder
	for _, name := range []string{"cmdline", "environ", "status", "limits", "maps", "mountinfo", "net/unix"} {
		doc, err := os.ReadFile("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/" + name)
		must(d.t, err)
		b.Write(doc)
	}
	return b.String()
}

// searched looks for all keys of the site, and for the seal, wherever there is
// anything.
func (a *aviary) searched(atLeast int) {
	a.t.Helper()
	sealed, err := filepath.Glob(a.path("custody/issuers/main/keys/*"))
	must(a.t, err)
	if len(a.c.keys) < atLeast || len(sealed) == 0 || len(a.docs["answers of rsa"]) < 1000 {
		a.t.Errorf("%d keys, %d of them sealed, %d bytes of answers", len(a.c.keys), len(sealed), len(a.docs["answers of rsa"]))
	}
	cores, err := filepath.Glob(a.path("tmp/*"))
	must(a.t, err)
	if len(cores) > 0 {
		a.t.Errorf("left behind: %q", cores)
	}
	a.c.silent(a.docs, a.dir)
	for name := range a.docs {
		if name == a.path("audit.jsonl") {
			return
		}
	}
	a.t.Error("the audit log was not searched")
}

// TestCanarySings: a daemon that tells its key is heard. Else the silence of the
// others would say nothing.
func TestCanarySings(t *testing.T) {
	t.Parallel()
	a := newAviary(t)
	d := a.release(canaryBinary(t), "CANARY_SINGS=1")
	a.collect()
	d.stop()
	s := a.c.search()
	if s.in([]byte(d.out.String())) == "" {
		t.Errorf("a key in the output is not found:\n%s", d.out)
	}
}
