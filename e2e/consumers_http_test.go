package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// answer is what came over the public listener.
type answer struct {
	status int
	header http.Header
	body   string
}

func fetch(t *testing.T, method, url string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	must(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// TestPublicListener looks at the endpoint as caches, browsers and careful
// consumers do.
func TestPublicListener(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("url: http://"+s.public, "url: http://"+s.public+"/tenants/one")
	d := s.start("web")
	url := "http://" + d.public + "/tenants/one/.well-known/jwks.json"
	d.standby(10*time.Second, "web")

	got := fetch(t, "GET", url)
	etag := got.header.Get("ETag")
	if got.status != 200 || got.header.Get("Content-Type") != "application/jwk-set+json" || !regexp.MustCompile(`^"[^"]+"$`).MatchString(etag) {
		t.Errorf("GET: %+v", got)
	}
	if cc := got.header.Get("Cache-Control"); cc != "public, max-age=2, must-revalidate" {
		t.Errorf("Cache-Control: %s", cc)
	}
	if n := strings.Count(got.body, `"kid"`); n != 2 || strings.Contains(got.body, `"d"`) {
		t.Errorf("%d keys, want the active one and its standby, public members only: %s", n, got.body)
	}
	for _, c := range []struct {
		name, method, url string
		header            []string
		status            int
		body              string
	}{
		{"HEAD", "HEAD", url, nil, 200, ""},
		{"known", "GET", url, []string{"If-None-Match", etag}, 304, ""},
		{"known, weakly, in a list", "GET", url, []string{"If-None-Match", `"other", W/` + etag}, 304, ""},
		{"known, by HEAD", "HEAD", url, []string{"If-None-Match", etag}, 304, ""},
		{"another one is known", "GET", url, []string{"If-None-Match", `"other"`}, 200, got.body},
		{"from a browser", "GET", url, []string{"Origin", "https://app.example"}, 200, got.body},
		{"POST", "POST", url, nil, 405, "use GET or HEAD\n"},
		{"DELETE", "DELETE", url, nil, 405, "use GET or HEAD\n"},
		{"another tenant", "GET", "http://" + d.public + "/.well-known/jwks.json", nil, 404, "nothing is published here\n"},
		{"an own path", "GET", "http://" + d.public + "/v1/sign", nil, 404, "nothing is published here\n"},
	} {
		a := fetch(t, c.method, c.url, c.header...)
		if a.status != c.status || a.body != c.body {
			t.Errorf("%s: status %d, body %q, want %d, %q", c.name, a.status, a.body, c.status, c.body)
		}
		if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Location") != "" {
			t.Errorf("%s: headers %v", c.name, a.header)
		}
		if c.status < 400 && (a.header.Get("ETag") != etag || a.header.Get("Cache-Control") == "") {
			t.Errorf("%s: a cache learns nothing from %v", c.name, a.header)
		}
		if c.status == 405 && a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow %q", c.name, a.header.Get("Allow"))
		}
	}
	if n := fetch(t, "HEAD", url).header.Get("Content-Length"); n != strconv.Itoa(len(got.body)) {
		t.Errorf("HEAD: Content-Length %s of a body of %d bytes", n, len(got.body))
	}
	within(t, 30*time.Second, "another set after a rotation", func() error {
		if a := fetch(t, "GET", url, "If-None-Match", etag); a.status != 200 {
			return fmt.Errorf("still %s", etag)
		}
		return nil
	})
}

// TestCachesAreToldOfAWithdrawal: max-age shrinks as a key's withdrawal comes
// nearer, and never below 30 seconds, which would bring every consumer at once.
func TestCachesAreToldOfAWithdrawal(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("consumer_cache: 2s", "consumer_cache: 35s").edit("jwks_max_age: 2s", "jwks_max_age: 35s").
		edit("@every 10s", "@every 1h").edit("max_token_ttl: 10s", "max_token_ttl: 31s")
	d := s.start("web")
	if age := maxAge(t, d); age != 35 {
		t.Fatalf("max-age=%d while nothing leaves the set", age)
	}
	d.standby(45*time.Second, "web") // its lead is 36 s
	if out, errs, code := cli(t, nil, "rotate", "web", "--yes", "--admin-socket", d.admin); code != 0 {
		t.Fatalf("rotate: %s%s", out, errs)
	}
	seen := map[int]bool{}
	within(t, 20*time.Second, "the shortest max-age", func() error {
		age := maxAge(t, d)
		if seen[age] = true; age > 30 {
			return fmt.Errorf("max-age=%d", age)
		}
		return nil
	})
	closed, found := d.key("web", "closed")
	if !found || time.Until(closed.WithdrawnAt) > 31*time.Second {
		t.Errorf("max-age is down to 30 s, and the next withdrawal is that of %+v", closed)
	}
	if !seen[32] && !seen[31] || seen[33] || seen[34] { // a key is closed 32 seconds before it is withdrawn
		t.Errorf("on its way from 35 s to 30 s max-age was %v", seen)
	}
	time.Sleep(3 * time.Second)
	if age := maxAge(t, d); age != 30 {
		t.Errorf("max-age=%d nearer to the withdrawal", age)
	}
}

func maxAge(t *testing.T, d *daemon) int {
	t.Helper()
	cc := fetch(t, "GET", d.jwksURL()).header.Get("Cache-Control")
	m := regexp.MustCompile(`^public, max-age=([0-9]+), must-revalidate$`).FindStringSubmatch(cc)
	if m == nil {
		t.Fatalf("Cache-Control: %q", cc)
	}
	age, err := strconv.Atoi(m[1])
	must(t, err)
	return age
}
