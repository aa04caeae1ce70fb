package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// TestFaultReplyLost: of every write the first reply is lost, in one way after
// the other, from the founding of the issuer over a rotation. Each is found out
// to have happened: one chain, one standby, one half for each key.
func TestFaultReplyLost(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Unique("lost")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
	s := newVaultSite(t, server, mount, "all")
	proxy := s.counted()
	l := &loser{times: map[string]int{}}
	proxy.Decide(l.decide)
	d := s.start("web")
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	founded, root := d.rotations("web"), newSecrets(s, "main")
	tr.rotation(60*time.Second, 5*time.Second)
	within(t, 30*time.Second, "a standby in place of the one that signs now", func() error {
		if k, found := d.key("web", "standby"); !found || len(k.WaitingFor) > 0 {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	tr.end()
	d.stop()

	oneChain(t, s)
	if unnamed := unnamed(root); len(unnamed) != 0 {
		t.Errorf("halves without a name are in Vault: %v", unnamed)
	}
	m, _ := s.manifest("main", 0)
	if got := m.activated("web"); len(got) != 2 || !slices.Equal(got, tr.signers("web")) {
		t.Errorf("keys %v were active, and %v signed", got, tr.signers("web"))
	}
	if founded != 1 || !strings.Contains(d.out.String(), "write to vault without a definite answer; it is repeated") {
		t.Errorf("%d rotations counted after the founding; was anything lost?", founded)
	}
	t.Logf("replies lost: %v", l.times)
	for path, n := range l.times {
		if strings.HasSuffix(path, "/manifest") && n < 10 || n < 1 {
			t.Errorf("%s: %d replies lost", path, n)
		}
	}
}

// loser loses the reply of the first try of each write.
type loser struct {
	mu    sync.Mutex
	last  []byte
	times map[string]int // by path
	turn  int
}

func (l *loser) decide(r *http.Request) vaulttest.Fault {
	if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/data/issuers/") {
		return vaulttest.Pass
	}
	body, err := peek(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || bytes.Equal(body, l.last) {
		return vaulttest.Pass // the same once more
	}
	l.last = body
	l.times[r.URL.Path]++
	ways := []vaulttest.Fault{vaulttest.DropReply, vaulttest.Answer500, vaulttest.Hang}
	l.turn++
	return ways[l.turn%len(ways)]
}

// peek reads a request's body and leaves it to be read again.
func peek(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

// TestFaultMismatch: before each of a replica's writes arrives another one has
// written. What was planned is dropped and planned again from what is stored:
// nothing that was refused is ever stored, and nothing of the other is lost.
func TestFaultMismatch(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Unique("mismatch")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
	s := newVaultSite(t, server, mount, "all")
	proxy := s.counted()
	d := s.start("web")
	d.standby(40*time.Second, "web")
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	other := &meddler{s: s}
	proxy.Decide(other.decide)
	tr.rotation(60*time.Second, 5*time.Second)
	within(t, 20*time.Second, "a standby in place of the one that signs now", func() error {
		if k, found := d.key("web", "standby"); !found || len(k.WaitingFor) > 0 {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Pass })
	d.reason(25*time.Second, "ok", "", "")
	tr.end()
	if line := d.metric("keyturn_store_errors_total{"); line != "" {
		t.Errorf("a race that was lost counts as trouble with the store: %s", line)
	}
	d.stop()
	oneChain(t, s)
	other.wins(d)
}

// future is what a newer keyturn may write beside what this one knows.
const future = `{"z":1.0,"a":[12345678901234567890,"<&>"],"m":null}`

// meddler is another replica: it writes first, every second time.
type meddler struct {
	s *vaultSite

	mu      sync.Mutex
	turns   int
	first   int      // the version of its first write
	refused []string // write_ids of what came too late
	err     error
}

func (m *meddler) decide(r *http.Request) vaulttest.Fault {
	if !writesManifest(r) {
		return vaulttest.Pass
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turns++; m.turns%2 == 0 || m.err != nil {
		return vaulttest.Pass
	}
	var late string
	if late, m.err = writeID(r); m.err == nil {
		m.refused = append(m.refused, late)
		m.err = m.write()
	}
	return vaulttest.Pass
}

// writeID is that of the manifest in a request.
func writeID(r *http.Request) (string, error) {
	body, err := peek(r)
	if err != nil {
		return "", err
	}
	var write struct{ Data struct{ Manifest string } }
	if err := json.Unmarshal(body, &write); err != nil {
		return "", err
	}
	var m stored
	err = json.Unmarshal([]byte(write.Data.Manifest), &m)
	return m.WriteID, err
}

// write changes nothing that keyturn knows.
func (m *meddler) write() error {
	doc, version, err := m.s.document("main", 0)
	if err != nil {
		return err
	}
	if m.first == 0 {
		m.first = version + 1
	}
	doc["generation"] = json.RawMessage(fmt.Sprint(version + 1))
	doc["write_id"] = json.RawMessage(fmt.Sprintf(`"meddler-%d"`, version+1))
	doc["future"] = json.RawMessage(future)
	return m.s.overwrite("main", doc, version)
}

// wins wants what the other one wrote in every manifest since, and nothing of
// what came too late in any.
func (m *meddler) wins(d *daemon) {
	t := m.s.t
	t.Helper()
	must(t, m.err)
	_, last := m.s.manifest("main", 0)
	for version := 1; version <= last; version++ {
		doc, _, err := m.s.document("main", version)
		must(t, err)
		var id string
		must(t, json.Unmarshal(doc["write_id"], &id))
		if slices.Contains(m.refused, id) {
			t.Errorf("version %d is a write that was refused", version)
		}
		if version >= m.first && !sameJSON(doc["future"], future) {
			t.Errorf("version %d: what the other one wrote is %q", version, doc["future"])
		}
	}
	if len(m.refused) < 4 || last < m.first+2*len(m.refused)-2 {
		t.Errorf("%d writes were refused, from version %d to %d", len(m.refused), m.first, last)
	}
	told := 0
	for line := range strings.Lines(d.out.String()) {
		if strings.Contains(line, `"msg":"another replica wrote first"`) {
			if told++; !strings.Contains(line, `"level":"INFO"`) {
				t.Errorf("a lost race is no more than information: %s", line)
			}
		}
	}
	if told != len(m.refused) {
		t.Errorf("%d races lost, %d in the log", len(m.refused), told)
	}
	t.Logf("%d writes refused", len(m.refused))
}

// sameJSON compares all but spaces and the escapes of strings: 1.0 is not 1.
func sameJSON(doc json.RawMessage, want string) bool {
	var escaped, wanted bytes.Buffer
	json.HTMLEscape(&escaped, doc)
	json.HTMLEscape(&wanted, []byte(want))
	return escaped.String() == wanted.String()
}

// document reads a version of a manifest, 0 for the newest, as it is written.
func (s *vaultSite) document(issuer string, version int) (map[string]json.RawMessage, int, error) {
	secret, err := s.vault.Client().Logical().ReadWithData(s.mount+"/data/issuers/"+issuer+"/manifest", map[string][]string{"version": {fmt.Sprint(version)}})
	if err != nil {
		return nil, 0, err
	}
	if secret == nil || secret.Data["data"] == nil {
		return nil, 0, fmt.Errorf("no version %d of the manifest", version)
	}
	data, meta := secret.Data["data"].(map[string]any), secret.Data["metadata"].(map[string]any)
	at, err := meta["version"].(json.Number).Int64()
	if err != nil {
		return nil, 0, err
	}
	var doc map[string]json.RawMessage
	err = json.Unmarshal([]byte(data["manifest"].(string)), &doc)
	return doc, int(at), err
}

// overwrite replaces a version of a manifest, which must be the newest.
func (s *vaultSite) overwrite(issuer string, doc map[string]json.RawMessage, version int) error {
	var text strings.Builder
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false) // what is written goes there as it is
	if err := out.Encode(doc); err != nil {
		return err
	}
	_, err := s.vault.Client().Logical().Write(s.mount+"/data/issuers/"+issuer+"/manifest", map[string]any{
		"options": map[string]any{"cas": version}, "data": map[string]any{"manifest": text.String()},
	})
	return err
}
