package e2e

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStopIsQuiet: a stop that was asked for is no fault, so nothing of it is
// logged as one; an operator who greps for warnings finds what went wrong. A
// caller that is slow to send its body makes the drain long enough to be looked at.
func TestStopIsQuiet(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	d.standby(20*time.Second, "web")
	held := must1(net.Dial("unix", d.sign))(t)
	defer held.Close()
	must1(held.Write([]byte("POST /v1/sign HTTP/1.1\r\nHost: keyturn\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")))(t)
	must1(io.ReadAtLeast(held, make([]byte, 64), len("HTTP/1.1 100")))(t) // it waits for the body now
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	d.logged(10*time.Second, `"msg":"stopping"`)
	time.Sleep(2 * time.Second) // for which whoever wants to complain has time
	must1(held.Write([]byte("0123456789")))(t)
	must1(io.ReadAll(held))(t)
	select {
	case err := <-d.exited:
		d.exited <- err // for stop
	case <-time.After(20 * time.Second):
		t.Fatal("keyturn did not stop")
	}
	d.stop()
	_, after, stopping := strings.Cut(d.out.String(), `"msg":"stopping"`)
	if !stopping {
		t.Fatal("the log does not tell of the stop")
	}
	_, after, _ = strings.Cut(after, "\n")
	lines := 0
	for line := range strings.Lines(after) {
		var l struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || (l.Level != "INFO" && l.Level != "DEBUG") {
			t.Errorf("logged at a clean stop (%v): %s", err, line)
		}
		lines++
	}
	if lines == 0 {
		t.Error("nothing was logged after the stop began")
	}
}
