package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/loopback"
)

// keyturn is the binary under test, built once with the race detector; plain
// is the one that users run, for what is measured.
var keyturn, plain string

// together is how many tests run at a time, unless -parallel says otherwise.
// Most of them wait for a clockwork, so there are more than processors.
const together = 10

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", fmt.Sprint(together)) // a number is what it takes
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keyturn-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		keyturn, plain = filepath.Join(dir, "race", "keyturn"), filepath.Join(dir, "plain", "keyturn")
		for path, args := range map[string][]string{keyturn: {"-race"}, plain: {"-trimpath", "-tags", "timetzdata"}} {
			build := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-o", path}, args...), "./cmd/keyturn")...)
			build.Dir = ".."
			build.Env = append(os.Environ(), "GOWORK=off")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build keyturn: %v\n%s", err, out)
				return 1
			}
		}
		defer closeSharedVault()
		return m.Run()
	}())
}

// daemon is a running keyturn.
type daemon struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	out    *output
	exited chan error
	sign   string // path of the sign socket
	admin  string
	public string // host:port of the public listener
	status string // host:port of the status listener
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// secretText is a PEM of a private key, a token of Vault's, or a JWT: two
// segments that begin as JSON does, for a kid may begin so by chance.
var secretText = regexp.MustCompile(`PRIVATE KEY|hvs\.|eyJ[A-Za-z0-9_-]*\.eyJ`)

// start runs the daemon; the test's end stops it with SIGTERM and wants a
// clean exit and no secret in what it printed.
func start(t *testing.T, d daemon, env []string, args ...string) *daemon {
	t.Helper()
	return startBinary(t, keyturn, d, env, args...)
}

func startBinary(t *testing.T, binary string, d daemon, env []string, args ...string) *daemon {
	t.Helper()
	d.t, d.out, d.exited = t, &output{}, make(chan error, 1)
	d.cmd = exec.Command(binary, args...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.Env = cleanEnv()
	if d.dir != "" { // all run on one host, whose name would be that of each
		d.cmd.Env = append(d.cmd.Env, "KEYTURN_REPLICA="+filepath.Base(d.dir))
	}
	d.cmd.Env = append(d.cmd.Env, env...)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.exited <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("output of keyturn %s:\n%s", strings.Join(args, " "), d.out)
		}
		// The lines of keyturn dev hold no token either: they tell how to get one.
		if found := secretText.FindString(d.out.String()); found != "" {
			t.Errorf("keyturn printed %q", found)
		}
	})
	return &d
}

// cleanEnv is the environment without what would configure keyturn or Vault.
func cleanEnv() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "KEYTURN_") && !strings.HasPrefix(e, "VAULT_") {
			out = append(out, e)
		}
	}
	return out
}

// stop ends the daemon with SIGTERM, once, and wants exit code 0.
func (d *daemon) stop() {
	d.t.Helper()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.exited:
		if err != nil {
			d.t.Errorf("keyturn after SIGTERM: %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // for its goroutines
		d.t.Errorf("keyturn did not stop within 20 s of SIGTERM")
		<-d.exited
	}
	d.cmd = nil
}

// kill ends the daemon with SIGKILL.
func (d *daemon) kill() {
	d.t.Helper()
	_ = d.cmd.Process.Kill()
	<-d.exited
	d.cmd = nil
}

// within polls until ok returns nil, and fails the test with its last error.
func within(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ask is the request that the tests' profiles allow.
func ask(profile string) api.SignRequest {
	return api.SignRequest{Profile: profile, Subject: "alice", Audience: api.Audience{"demo"}}
}

// canSign waits until the daemon signs for a profile.
func (d *daemon) canSign(limit time.Duration, profile string) {
	d.t.Helper()
	within(d.t, limit, "first token", func() error {
		select {
		case err := <-d.exited:
			d.exited <- err
			return fmt.Errorf("keyturn has ended: %v", err)
		default:
		}
		_, err := d.token(ask(profile))
		return err
	})
}

// token asks the sign socket for one token.
func (d *daemon) token(req api.SignRequest) (api.SignResponse, error) {
	var out api.SignResponse
	body, err := json.Marshal(req)
	if err != nil {
		return out, err
	}
	err = call(overUnix(d.sign), http.MethodPost, "http://keyturn/v1/sign", body, &out)
	return out, err
}

// mustToken is token for tests that need one.
func (d *daemon) mustToken(profile string) api.SignResponse {
	d.t.Helper()
	out, err := d.token(ask(profile))
	if err != nil {
		d.t.Fatalf("sign: %v", err)
	}
	return out
}

// issuers asks the admin socket.
func (d *daemon) issuers() (api.Issuers, error) {
	var out api.Issuers
	err := call(overUnix(d.admin), http.MethodGet, "http://keyturn/v1/issuers", nil, &out)
	return out, err
}

// key finds the first key of a ring in a state.
func (d *daemon) key(ring, state string) (api.Key, bool) {
	d.t.Helper()
	all, err := d.issuers()
	if err != nil {
		d.t.Fatalf("admin socket: %v", err)
	}
	for _, i := range all.Issuers {
		for _, r := range i.Rings {
			for _, k := range r.Keys {
				if r.Name == ring && k.State == state {
					return k, true
				}
			}
		}
	}
	return api.Key{}, false
}

// health asks the status listener; path is /readyz and the like.
func (d *daemon) health(path string) (int, api.Health, error) {
	var h api.Health
	resp, err := http.Get("http://" + d.status + path)
	if err != nil {
		return 0, h, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, h, json.NewDecoder(resp.Body).Decode(&h)
}

// metric returns the lines of /metrics that start with a name.
func (d *daemon) metric(name string) string {
	d.t.Helper()
	resp, err := http.Get("http://" + d.status + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}

// overUnix is an HTTP client whose every request goes to a Unix socket.
func overUnix(path string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// call makes one request; a problem document becomes a *api.Problem.
func call(client *http.Client, method, url string, body []byte, out any) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p := new(api.Problem)
		if err := json.NewDecoder(resp.Body).Decode(p); err != nil {
			return errors.Join(fmt.Errorf("status %d", resp.StatusCode), err)
		}
		return p
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// cli runs the command line and returns what it printed and its exit code,
// which is -1 where it had to be killed.
func cli(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, keyturn, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &o, &e, append(cleanEnv(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// freeAddr is a loopback address that nobody listens on, for the test alone.
func freeAddr(t *testing.T) string {
	t.Helper()
	p, err := loopback.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Release(); err != nil {
			t.Error(err)
		}
	})
	return p.Addr()
}
