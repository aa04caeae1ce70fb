package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// chaosFile is about the fastest clockwork that the solver accepts of replicas
// that serve the set themselves: with max_token_ttl 3s S is 9.75s, and a new key
// waits 11.25s of the 12 between two rotations. Names in capitals stand for
// what differs.
const chaosFile = `store: vault
state_dir: state
roles: [rotator, signer, publisher]
sync_interval: 250ms
log: {level: debug, format: json}
vault:
  address: VAULT
  mount: MOUNT
  timeout: 2s
  auth: {method: approle, mount: approle, role_id_file: ROLE_ID, secret_id_file: SECRET_ID}
listen:
  sign: [{name: default, path: sign.sock, mode: "0660"}]
  admin: {path: admin.sock}
  public: {addr: "PUBLIC", insecure: true}
  status: {addr: "STATUS"}
issuers:
  - name: main
    revision: REVISION
    url: ISSUER
    consumer_cache: 1s
    jwks_max_age: 1s
    clock_skew: 500ms
    leeway: 1s
    outage_budget: 4s
    publish:
      - {name: file, file: www/jwks.json}
      - {name: endpoint, http: true}
    confirm: [CONFIRM]
rings:
  - {name: web, issuer: main, algorithm: ES256, rotate: "@every 12s", max_token_ttl: TTL}
  - {name: api, issuer: main, algorithm: EdDSA, rotate: "@every 17s", max_token_ttl: TTL}
EXTRA_RINGprofiles:
  - {name: web, ring: web, allow: [{socket: default}], subject: {pattern: "^[a-z]+$"}, audiences: ["*"], ttl: {default: TTL, max: TTL}}
  - {name: api, ring: api, allow: [{socket: default}], subject: {pattern: "^[a-z]+$"}, audiences: ["*"], ttl: {default: TTL, max: TTL}}
EXTRA_PROFILEaudit: {file: audit.jsonl}
`

// What chaosExtra is replaced by while the third ring is there.
const (
	chaosExtraRing    = `  - {name: extra, issuer: main, algorithm: ES384, rotate: "@every 13s", max_token_ttl: TTL}` + "\n"
	chaosExtraProfile = `  - {name: extra, ring: extra, allow: [{socket: default}], subject: {pattern: "^[a-z]+$"}, audiences: ["*"], ttl: {default: TTL, max: TTL}}` + "\n"
)

// The times of chaosFile, with the names of docs/life-of-a-key.md.
const (
	chaosC      = time.Second
	chaosE      = 500 * time.Millisecond
	chaosLeeway = time.Second
	chaosB      = 4 * time.Second
	chaosSync   = 250 * time.Millisecond
	chaosGap    = 17 * time.Second // the longest of the schedules
)

// revision is a configuration of the issuer as its file has it.
type revision struct {
	number int
	ttl    time.Duration // T
	extra  bool          // there is a third ring
}

func (v revision) tail() time.Duration { return v.ttl + chaosE + chaosLeeway }

// span is S: how long a replica that is cut off may serve an old set.
func (v revision) span() time.Duration {
	return chaosB + chaosB/8 + chaosSync + chaosE + v.tail()
}

func (v revision) rings() []string {
	if v.extra {
		return []string{"web", "api", "extra"}
	}
	return []string{"web", "api"}
}

// replica is one of the three: a host with a folder of its own, its own way to
// Vault, and a process that comes and goes.
type replica struct {
	index                       int
	dir                         string
	sign, admin, public, status string
	link                        *link            // what TCP suffers
	proxy                       *vaulttest.Proxy // what HTTP suffers
	role                        vaulttest.AppRole
	binary, text                string
	ledger                      *ledger

	// process is held by whoever stops or starts the process.
	process sync.Mutex

	mu       sync.Mutex
	cmd      *exec.Cmd
	gone     chan struct{} // closed when cmd has ended
	exit     error         // how it ended, once gone is closed
	wanted   bool          // cmd is meant to run
	lives    int           // how many processes there have been
	began    time.Time     // when cmd was started, or went on
	revision revision
	health   hostHealth
}

// newReplica makes the next one, which ends with the test.
func (c *chaos) newReplica(binary string) *replica {
	t, index := c.t, len(c.replicas)
	t.Helper()
	s := newSite(t)
	r := &replica{
		index: index, dir: s.dir, sign: s.path("sign.sock"), admin: s.path("admin.sock"), public: s.public, status: s.status,
		binary: binary, ledger: c.ledger, revision: revision{number: 1, ttl: 2 * time.Second},
	}
	if c.issuer == "" {
		c.issuer = "http://" + s.public
	}
	confirm := ""
	if c.confirms {
		confirm = fmt.Sprintf("%q", c.issuer+"/.well-known/jwks.json")
	}
	policy, err := os.ReadFile("../deploy/vault/all.hcl")
	must(t, err)
	front := c.cluster.Front()
	r.role = front.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{front.Policy(t, strings.ReplaceAll(string(policy), `path "keyturn/`, `path "`+c.mount+"/"))}})
	r.proxy = vaulttest.NewProxy(t, c.cluster.URL(index%c.cluster.Nodes()))
	r.link = newLink(t, fmt.Sprintf("replica %d", index), strings.TrimPrefix(r.proxy.URL, "http://"))
	r.text = strings.NewReplacer("VAULT", r.link.url(), "MOUNT", c.mount, "ROLE_ID", r.role.RoleIDFile, "SECRET_ID", r.role.SecretIDFile,
		"PUBLIC", r.public, "STATUS", r.status, "ISSUER", c.issuer, "CONFIRM", confirm).Replace(chaosFile)
	t.Cleanup(func() {
		r.link.heal()
		r.kill()
	})
	return r
}

func (r *replica) path(name string) string { return filepath.Join(r.dir, name) }

func (r *replica) now() revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revision
}

func (r *replica) setRevision(v revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revision = v
}

// start writes the configuration and runs the daemon, which is told to be in
// service when it says that it is ready.
func (r *replica) start() error {
	v := r.now()
	ring, profile := "", ""
	if v.extra {
		ring, profile = chaosExtraRing, chaosExtraProfile
	}
	text := strings.NewReplacer("EXTRA_RING", ring, "EXTRA_PROFILE", profile).Replace(r.text)
	text = strings.NewReplacer("REVISION", fmt.Sprint(v.number), "TTL", v.ttl.String()).Replace(text)
	if err := os.WriteFile(r.path("keyturn.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	out, err := os.OpenFile(r.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(r.binary, "run", "--config", r.path("keyturn.yaml"))
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, append(cleanEnv(), "KEYTURN_REPLICA="+filepath.Base(r.dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	r.mu.Lock()
	r.cmd, r.gone, r.exit, r.wanted = cmd, gone, nil, true
	r.lives++
	r.began = time.Now()
	r.mu.Unlock()
	go func() {
		err := cmd.Wait()
		r.mu.Lock()
		wanted := r.wanted && r.cmd == cmd
		r.exit = err
		r.mu.Unlock()
		if wanted {
			r.ledger.fail("process", "replica %d ended by itself: %v; see %s", r.index, err, r.path("log"))
		}
		close(gone)
	}()
	r.health.returns(time.Now())
	return nil
}

// signal sends to the process, if there is one.
func (r *replica) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd != nil {
		_ = r.cmd.Process.Signal(sig) // it may have ended
	}
}

// end takes the process for one that is to end, and returns what to wait for.
func (r *replica) end() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = false
	if r.cmd == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return r.gone
}

// kill ends the process with SIGKILL, also one that is stopped.
func (r *replica) kill() {
	gone := r.end()
	r.signal(syscall.SIGKILL)
	<-gone
}

// stop ends the process with SIGTERM, and wants a clean exit.
func (r *replica) stop() error {
	gone := r.end()
	r.signal(syscall.SIGTERM)
	select {
	case <-gone:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.exit
	case <-time.After(30 * time.Second):
		r.signal(syscall.SIGQUIT) // for its goroutines
		<-gone
		return errors.New("it did not stop within 30 s of SIGTERM")
	}
}

// goesOn takes the process for one that has just begun: it was stopped.
func (r *replica) goesOn() {
	r.health.returns(time.Now())
	r.mu.Lock()
	r.began = time.Now()
	r.mu.Unlock()
	r.signal(syscall.SIGCONT)
}

// runs is for how long the process has been running.
func (r *replica) runs() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.began)
}

// life tells processes of the same replica apart.
func (r *replica) life() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lives
}

// hostHealth is what the load balancer before a replica's host knows. It sends
// consumers of the file there while the daemon says that it is ready; of a
// daemon that has died it takes S to notice, which is as long as it may.
type hostHealth struct {
	mu    sync.Mutex
	ready bool
	back  time.Time // answers to questions of before do not count
	until time.Time // how long a host whose daemon died is still in service
}

// dies: the daemon stops answering; the host goes on being used until a time.
func (h *hostHealth) dies(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.until, h.back = false, until, until.Add(time.Hour)
}

// returns: the daemon may answer again from now on.
func (h *hostHealth) returns(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.back = now
}

func (h *hostHealth) saw(asked time.Time, ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if asked.After(h.back) {
		h.ready = ready
	}
}

func (h *hostHealth) inService(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready || now.Before(h.until)
}
