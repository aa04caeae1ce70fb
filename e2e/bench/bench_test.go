package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain is this binary as the processes that a run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"load", "raw", "goclient"}, os.Args[1]) {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestRun measures everything for a moment, so that `make bench` cannot rot.
// It wants each line, in its form, and tokens that were verified. It says
// nothing about speed.
func TestRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("run this test as root: a second user floods the daemon")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "keyturn")
	if err := build(ctx, binary); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := plan{
		binary: binary, rounds: 1, length: 100 * time.Millisecond, latencyRounds: 1, latency: 300 * time.Millisecond,
		rsaBits: []int{2048}, verify: 1, out: &out,
	}.run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	form := regexp.MustCompile(`^(bench \S+ [0-9.]+ (?:tokens/s|signatures/s|tokens|us|MB)|ratio \S+ [0-9.]+)$`)
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !form.MatchString(line) {
			t.Errorf("a line of another form: %q", line)
			continue
		}
		f := strings.Fields(line)
		lines[f[0]+" "+f[1]] = f[2]
	}
	for _, name := range []string{
		"bench es256.raw", "bench es256.socket", "bench es256.batch", "bench es256.socket-audited", "bench es256.socket-go-client",
		"bench rs256.raw", "bench rs256.socket", "bench eddsa.raw", "bench eddsa.socket",
		"bench es256.vault-transit", "bench es256.vault-identity", "bench es256.p99_at_half_load", "bench es256.p99_flooded",
		"bench memory.idle", "bench memory.under_load", "bench es256.socket.server-cpu", "bench es256.socket.load-cpu",
		"ratio es256.socket/raw", "ratio es256.batch/raw", "ratio rs256.socket/raw", "ratio eddsa.socket/raw",
		"ratio es256.socket-audited/es256.socket", "ratio es256.socket/vault-transit", "ratio es256.socket/vault-identity", "ratio p99.flooded/calm",
		"bench tokens.verified",
	} {
		if v, err := strconv.ParseFloat(lines[name], 64); err != nil || v <= 0 {
			t.Errorf("%s: %q, want a number above 0", name, lines[name])
		}
	}
	if t.Failed() {
		t.Logf("printed:\n%s", out.String())
	}
}
