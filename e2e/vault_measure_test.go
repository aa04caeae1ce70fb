package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVaultMeasured measures the binary that users run, on an issuer that
// exists: from exec to the first token, and the memory of an idle daemon. The
// goals are 300 ms and 40 MB. It runs before the parallel tests do.
func TestVaultMeasured(t *testing.T) {
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	s.edit("level: debug", "level: info").edit("outage_budget: 10s", "outage_budget: 60s").edit("@every 28s", "@every 2m")
	s.start("web").stop()

	var times []time.Duration
	for range 7 {
		began := time.Now()
		d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
		for {
			if _, err := d.token(ask("web")); err == nil {
				break
			} else if time.Since(began) > 20*time.Second {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		times = append(times, time.Since(began))
		d.stop()
	}
	slices.Sort(times)
	t.Logf("from exec to the first token: median %s of %v", times[len(times)/2], times)

	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	d.canSign(20*time.Second, "web")
	time.Sleep(10 * time.Second)
	t.Logf("idle for 10 s: %s", memory(t, d.cmd.Process.Pid))
}

// memory is what /proc says of a process.
func memory(t *testing.T, pid int) string {
	t.Helper()
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	var out []string
	for line := range strings.Lines(string(doc)) {
		for _, name := range []string{"VmHWM", "VmRSS", "RssAnon", "RssFile"} {
			if strings.HasPrefix(line, name+":") {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, ", ")
}
