package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestFaultStart: a daemon that starts without its Vault serves the last public
// set to the end of its time, at the endpoint and in the file, and signs
// nothing. It does not end itself, and when Vault is there all is.
// (TestVaultDownAtStart is the same with a Vault that comes in time.)
func TestFaultStart(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	w, _ := s.wired()
	d := s.start("web")
	d.reason(15*time.Second, "ok", "", "")
	before := d.mustToken("web")
	d.stop()
	m, _ := s.manifest("main", 0)
	w.cut()

	d = s.run()
	d.reason(15*time.Second, "degraded", "store_unavailable", "connection refused")
	d.cannotSign(t)
	if err := verifyWith(d.jwksURL(), before.Token, "demo"); err != nil {
		t.Errorf("the token of before the restart: %v", err)
	}
	d.servesUntil(t, m.Lease.Add(vaultTail), s.path("jwks.json"))
	d.cannotSign(t)
	if tries := strings.Count(d.out.String(), `"msg":"vault login failed"`); tries < 1 || tries > 4 {
		t.Errorf("%d logins tried", tries)
	}
	if n := strings.Count(d.out.String(), `"msg":"started"`); n != 1 {
		t.Errorf("started %d times", n)
	}

	w.mend()
	d.canSign(30*time.Second, "web")
	if after := d.mustToken("web"); after.Kid != before.Kid {
		t.Errorf("%s signs, %s did before", after.Kid, before.Kid)
	}
	// The outage may have made a rotation late; it comes as soon as its lead has passed.
	d.reason(time.Minute, "ok", "", "")
	out, errs, code := cli(t, nil, "verify", "--jwks", s.path("jwks.json"), "--audience", "demo", d.mustToken("web").Token)
	if code != 0 {
		t.Errorf("the file is not back: exit code %d: %s%s", code, out, errs)
	}
	if status := getStatus(t, d.jwksURL()); status != http.StatusOK {
		t.Errorf("the endpoint answers %d", status)
	}
}
