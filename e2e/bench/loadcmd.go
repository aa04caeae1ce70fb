package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
)

// loadFlags is what `bench load` can be told.
type loadFlags struct {
	cfg         load.Config
	socket, tcp string
	profile     string
	batch, uid  int
	request     string
	keys, input string
	asJSON      bool
}

func (f *loadFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.socket, "socket", "", "sign socket of the daemon")
	fs.StringVar(&f.tcp, "tcp", "", "host:port instead of a socket")
	fs.IntVar(&f.cfg.Conns, "c", 16, "connections")
	fs.DurationVar(&f.cfg.Duration, "d", 3*time.Second, "how long is measured")
	fs.DurationVar(&f.cfg.Warmup, "warmup", 500*time.Millisecond, "what is not measured before")
	fs.Float64Var(&f.cfg.Rate, "rate", 0, "requests a second at an even rate; 0: as fast as answers come")
	fs.IntVar(&f.batch, "batch", 0, "tokens in a request; 0: POST /v1/sign")
	fs.StringVar(&f.profile, "profile", "es256", "profile to sign with")
	fs.IntVar(&f.cfg.PID, "pid", 0, "the daemon's process, for its processor time")
	fs.IntVar(&f.uid, "uid", -1, "become this user first")
	fs.BoolVar(&f.cfg.Tolerate, "tolerate", false, "count refusals instead of giving up")
	fs.BoolVar(&f.cfg.Patient, "patient", false, "let the scheduler run the load when it suits it (SCHED_BATCH): cheaper, and slower to see an answer")
	fs.Int64Var(&f.cfg.KeepEvery, "verify", 97, "verify every Nth token after the end; 0 for none")
	fs.StringVar(&f.request, "request", "", "file with the HTTP request to send, instead of one for keyturn")
	fs.StringVar(&f.cfg.Answer.Mark, "mark", `"token":"`, "what stands before a token in an answer")
	fs.StringVar(&f.keys, "keys", "", "file with the JWKS to verify with; the daemon's /v1/jwks without it")
	fs.StringVar(&f.input, "input", "", "the answer holds signatures of this JWS signing input, not tokens")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON, times in nanoseconds")
}

// loadCommand is the load generator as a process.
func loadCommand(args []string) error {
	var f loadFlags
	fs := flag.NewFlagSet("bench load", flag.ContinueOnError)
	f.register(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := f.prepare(); err != nil {
		return err
	}
	res, err := load.Run(f.cfg)
	if err != nil {
		return err
	}
	if f.cfg.KeepEvery > 0 {
		jwks, err := f.jwks()
		if err != nil {
			return err
		}
		if res.Verified, err = load.Verify(res.Kept, f.input, jwks); err != nil {
			return err
		}
	}
	if f.asJSON {
		return json.NewEncoder(os.Stdout).Encode(res)
	}
	_, err = fmt.Println(describe(res))
	return err
}

// prepare builds the request, and drops rights where it was told to.
func (f *loadFlags) prepare() (err error) {
	f.cfg.Network, f.cfg.Addr = "unix", f.socket
	if f.tcp != "" {
		f.cfg.Network, f.cfg.Addr = "tcp", f.tcp
	}
	f.cfg.Answer.Tokens, f.cfg.Answer.Dots = max(f.batch, 1), 2
	if f.input != "" {
		f.cfg.Answer.Dots = 0
	}
	if f.request == "" {
		f.cfg.Request = signRequest(f.profile, f.batch)
	} else if f.cfg.Request, err = os.ReadFile(f.request); err != nil {
		return err
	}
	if f.uid < 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setgid(f.uid); err != nil {
		return fmt.Errorf("become gid %d: %w", f.uid, err)
	}
	if err := syscall.Setuid(f.uid); err != nil {
		return fmt.Errorf("become uid %d: %w", f.uid, err)
	}
	return nil
}

// signRequest is what an application would ask: a subject, an audience and
// two claims; in a batch, each entry for another subject.
func signRequest(profile string, batch int) []byte {
	entry := func(i int) string {
		return fmt.Sprintf(`{"profile":%q,"subject":"user-%d","audience":["api://orders"],"ttl_seconds":300,"claims":{"tenant":"acme","scope":"orders:read orders:write"}}`, profile, 1000+i)
	}
	path, body := "/v1/sign", entry(0)
	if batch > 0 {
		path = "/v1/sign/batch"
		list := make([]string, batch)
		for i := range list {
			list[i] = entry(i)
		}
		body = `{"requests":[` + strings.Join(list, ",") + `]}`
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: keyturn\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// jwks is the key set to verify with.
func (f *loadFlags) jwks() ([]byte, error) {
	if f.keys != "" {
		return os.ReadFile(f.keys)
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", f.socket) }}
	resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("http://keyturn/v1/jwks")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /v1/jwks: %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func describe(r load.Result) string {
	return fmt.Sprintf("%.0f tokens/s (%d requests in %s, %d refused, %d reconnects, %d unanswered) · processor µs a token: server %.1f, load %.1f · latency p50 %s p90 %s p99 %s p99.9 %s max %s · %d tokens verified",
		r.Rate(), r.Requests, r.Elapsed.Round(time.Millisecond), r.Refused, r.Reconnects, r.Unanswered,
		r.PerToken(r.ServerCPU), r.PerToken(r.LoadCPU), us(r.P50), us(r.P90), us(r.P99), us(r.P999), us(r.Max), r.Verified)
}

func us(d time.Duration) string { return fmt.Sprintf("%.0fµs", float64(d)/1e3) }
