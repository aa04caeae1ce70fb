package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestStrangersLearnNothing: a user whom no profile allows, and one who may use
// another profile, are answered in the same bytes whatever profile they name,
// alone and in a batch; the audit log knows the difference. Fault 31.
func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	s := callersSite(t)
	s.startFor("root")
	stranger, one := someone{4209, 4209, nil}, someone{4201, 4201, nil}
	for _, who := range []someone{stranger, one} {
		seen := map[string][]string{}
		for _, profile := range []string{"root", "group", "nothere", "ROOT", "root ", strings.Repeat("x", 5000)} {
			status, alone := who.curl(t, s.path("sign.sock"), "/v1/sign", "-d", fmt.Sprintf(`{"profile":%q}`, profile))
			batched, inBatch := who.curl(t, s.path("sign.sock"), "/v1/sign/batch", "-d", fmt.Sprintf(`{"requests":[{"profile":%q}]}`, profile))
			answer := fmt.Sprintf("%d %s\n%d %s", status, alone, batched, inBatch)
			seen[answer] = append(seen[answer], profile)
			if status != 403 || !strings.Contains(alone, `"code":"forbidden"`) || !strings.Contains(inBatch, `"code":"forbidden"`) {
				t.Errorf("%s for profile %.20s: %s", who, profile, answer)
			}
		}
		if len(seen) != 1 {
			t.Errorf("%s can tell profiles apart: %q", who, seen)
		}
		reasons := map[string]int{}
		for _, r := range records(t, s.path("audit.jsonl")) {
			if r["uid"] == float64(who.uid) && r["decision"] == "deny" && r["code"] == "forbidden" {
				reasons[fmt.Sprint(r["reason"])]++
			}
		}
		want := map[string]int{"no allow item of the profile matches the caller": 4, "there is no such profile": 8}
		if who.uid == stranger.uid { // he was refused before his body was read
			want = map[string]int{"no profile allows the caller on this socket": 12}
		}
		if fmt.Sprint(reasons) != fmt.Sprint(want) {
			t.Errorf("%s in the audit log: %v, want %v", who, reasons, want)
		}
	}
}

// TestHostileRequests: what is huge, deep, ambiguous, or no JSON, from many at
// once, announced or chunked, is refused and leaves the daemon's memory small. Fault 32.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	fill := func(head, unit, tail string, size int) string {
		return head + strings.Repeat(unit, (size-len(head)-len(tail))/len(unit)) + tail
	}
	const sign, batch = "/v1/sign", "/v1/sign/batch"
	list := []struct {
		name, path, body string
		want             map[int]bool
	}{
		{"ten megabytes", sign, fill(`{"profile":"`, "x", `"}`, 10<<20), map[int]bool{413: true}},
		{"ten megabytes in a batch", batch, fill(`{"requests":["`, "x", `"]}`, 10<<20), map[int]bool{413: true}},
		{"eight megabytes of one entry", batch, fill(`{"requests":[{"profile":"`, "x", `"}]}`, 8<<20), map[int]bool{200: true}},
		{"eight megabytes of brackets", batch, fill(`{"requests":`, "[", ``, 8<<20), map[int]bool{400: true}},
		{"eight megabytes of small entries", batch, fill(`{"requests":[`, "{},", `{}]}`, 8<<20), map[int]bool{413: true}},
		{"eight megabytes of space", batch, fill(`{"requests":[]`, " ", `}`, 8<<20), map[int]bool{200: true}},
		{"eight megabytes of names", batch, fill(`{"requests":[{"claims":{`, `"a":1,`, `"b":1}}]}`, 8<<20), map[int]bool{400: true, 200: true}},
		{"many claims", sign, fill(`{"profile":"web","subject":"a","audience":"d","claims":{`, `"\u00e9":1,`, `"b":1}}`, 64<<10), map[int]bool{400: true}},
		{"a NUL", sign, good(",\"claims\":{\"a\":\"\x00\"}"), map[int]bool{400: true}},
		{"a NUL after it", sign, good("") + "\x00", map[int]bool{400: true}},
		{"a byte order mark", sign, "\ufeff" + good(""), map[int]bool{400: true}},
		{"half a surrogate in a name", sign, good(`,"claims":{"\udc00":1}`), map[int]bool{400: true}},
		{"overlong UTF-8", sign, good(",\"claims\":{\"a\":\"\xc0\xaf\"}"), map[int]bool{400: true}},
		{"no number", sign, good(`,"claims":{"a":NaN}`), map[int]bool{400: true}},
		{"a number with a plus", sign, good(`,"claims":{"a":+1}`), map[int]bool{400: true}},
		{"a hexadecimal number", sign, good(`,"claims":{"a":0x1}`), map[int]bool{400: true}},
		{"a ttl beyond all", sign, good(`,"ttl_seconds":1e400`), map[int]bool{400: true}},
		{"a ttl of many digits", sign, good(`,"ttl_seconds":` + strings.Repeat("9", 30_000)), map[int]bool{400: true}},
		{"a comment", sign, good(` /* "ttl_seconds":1 */`), map[int]bool{400: true}},
		{"single quotes", sign, `{'profile':'web'}`, map[int]bool{400: true}},
		{"two values", batch, `{"requests":[]}{"requests":[]}`, map[int]bool{400: true}},
	}
	client := overUnix(d.sign)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	atOnce := make(chan struct{}, 24)
	for range 4 {
		for _, tc := range list {
			for _, chunked := range []bool{false, true} {
				wg.Go(func() {
					atOnce <- struct{}{}
					defer func() { <-atOnce }()
					var body interface{ Read([]byte) (int, error) } = strings.NewReader(tc.body)
					if chunked {
						body = struct{ *bytes.Buffer }{bytes.NewBufferString(tc.body)} // of a length that the client does not know
					}
					resp, err := client.Post("http://keyturn"+tc.path, "", body)
					if err != nil {
						if len(tc.body) <= api.MaxBatchBytes { // else the daemon may hang up on who goes on sending
							t.Errorf("%s: %v", tc.name, err)
						}
						return
					}
					defer resp.Body.Close()
					if !tc.want[resp.StatusCode] && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
						t.Errorf("%s, chunked %v: status %d, want %v", tc.name, chunked, resp.StatusCode, tc.want)
					}
				})
			}
		}
	}
	wg.Wait()
	d.mustToken("web")
	if mb := d.peakMB(); mb > 300 {
		t.Errorf("%d MB at the peak", mb)
	} else {
		t.Logf("%d MB at the peak", mb)
	}
	for _, r := range records(t, s.path("audit.jsonl")) {
		if text, err := json.Marshal(r); err != nil || len(text) > 4<<10 {
			t.Errorf("a record of %d bytes: %.200s (%v)", len(text), text, err)
		}
	}
}

// TestCallersNameNothingOfOurs: whoever names what keyturn alone writes is
// refused: as a member of the request, as a claim, in other letters, in letters
// that Unicode folds to them, behind escapes, alone and in a batch. Fault 33.
func TestCallersNameNothingOfOurs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	folds := strings.NewReplacer("s", "\u017f", "k", "\u212a") // long s, the Kelvin sign
	var bodies []string
	for _, name := range []string{"alg", "kid", "typ", "iss", "exp", "iat", "nbf", "jti", "sub", "aud"} {
		escaped := fmt.Sprintf(`\u%04x%s`, name[0], name[1:])
		for _, spelling := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:2] + strings.ToUpper(name[2:]), folds.Replace(name), folds.Replace(strings.ToUpper(name[:1]) + name[1:]), escaped} {
			for _, value := range []string{`"x"`, `4102444800`, `null`, `["none"]`} {
				bodies = append(bodies, good(fmt.Sprintf(`,"%s":%s`, spelling, value)), good(fmt.Sprintf(`,"claims":{"scope":"a","%s":%s}`, spelling, value)))
			}
		}
	}
	for at := 0; at < len(bodies); at += 100 {
		list := bodies[at:min(at+100, len(bodies))]
		a := post(t, d.sign, "/v1/sign/batch", []byte(`{"requests":[`+strings.Join(list, ",")+`]}`))
		var out api.BatchResponse
		must(t, json.Unmarshal([]byte(a.body), &out))
		if len(out.Results) != len(list) {
			t.Fatalf("%d results of %d", len(out.Results), len(list))
		}
		for i, r := range out.Results {
			if r.Error == nil || r.SignResponse != nil || r.Error.Code != api.InvalidRequest && r.Error.Code != api.ClaimForbidden {
				t.Errorf("%s in a batch: %+v", list[i], r)
			}
		}
	}
	for i, body := range bodies {
		if i%7 != 0 { // a part of them alone, for the time that it takes
			continue
		}
		if a := post(t, d.sign, "/v1/sign", []byte(body)); a.status != 400 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	d.mustToken("web")
}
