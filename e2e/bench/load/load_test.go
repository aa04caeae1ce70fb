package load

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const request = "POST /v1/sign HTTP/1.1\r\nHost: keyturn\r\nContent-Length: 2\r\n\r\n{}"

// fake is a daemon that answers as it is told; n counts its answers.
func fake(t *testing.T, answer func(w http.ResponseWriter, n int64)) Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, n.Add(1)) })}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return Config{
		Network: "unix", Addr: path, Conns: 4, Warmup: 10 * time.Millisecond, Duration: 100 * time.Millisecond,
		Request: []byte(request), Answer: Answer{Mark: `"token":"`, Tokens: 1, Dots: 2}, KeepEvery: 1,
	}
}

// issuer signs tokens that are right, with another jti each.
func issuer(t *testing.T) (func(jti string) string, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	return func(jti string) string {
		obj, err := signer.Sign(fmt.Appendf(nil, `{"jti":%q}`, jti))
		if err != nil {
			t.Error(err)
			return ""
		}
		raw, err := obj.CompactSerialize()
		if err != nil {
			t.Error(err)
		}
		return raw
	}, jwks
}

func TestRight(t *testing.T) {
	sign, jwks := issuer(t)
	cfg := fake(t, func(w http.ResponseWriter, n int64) {
		fmt.Fprintf(w, `{"token":"%s","pad":"%s"}`, sign(fmt.Sprint(n)), strings.Repeat("x", int(n%3)*3000)) // some are chunked
	})
	for name, rate := range map[string]float64{"closed loop": 0, "even rate": 200} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			cfg.Rate = rate
			res, err := Run(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if rate > 0 && (res.Requests < 19 || res.Requests > 21) {
				t.Errorf("%d requests in 100 ms at 200 a second", res.Requests)
			}
			if res.Requests == 0 || res.Tokens != res.Requests || res.P50 <= 0 || res.P50 > res.P99 || res.P99 > res.Max || res.LoadCPU <= 0 {
				t.Errorf("measured %+v", res)
			}
			if n, err := Verify(res.Kept, "", jwks); err != nil || n != len(res.Kept) {
				t.Errorf("%d of %d verified: %v", n, len(res.Kept), err)
			}
		})
	}
}

// An even rate is not slowed by the server: what fell due meanwhile counts
// from when it was due.
func TestOmitsNothing(t *testing.T) {
	sign, _ := issuer(t)
	const stall = 80 * time.Millisecond
	cfg := fake(t, func(w http.ResponseWriter, n int64) {
		if n == 40 {
			time.Sleep(stall)
		}
		fmt.Fprintf(w, `{"token":"%s"}`, sign(fmt.Sprint(n)))
	})
	cfg.Conns, cfg.Rate, cfg.Duration = 1, 500, 400*time.Millisecond
	res, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// 40 of 200 fell due during the stall, and waited half of it on average.
	if res.P90 < stall/4 || res.Requests < 195 {
		t.Errorf("p90 %s of %d requests: the stall of %s shows in one of them alone", res.P90, res.Requests, stall)
	}
}

// What is not right ends the measurement.
func TestWrong(t *testing.T) {
	sign, jwks := issuer(t)
	good := sign("1")
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, n int64)
		tokens int
		want   string
	}{
		"refused":     {func(w http.ResponseWriter, _ int64) { w.WriteHeader(429); fmt.Fprint(w, `{"token":"`+good+`"}`) }, 1, "status 429"},
		"no token":    {func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, `{}`) }, 1, "0 tokens in the answer"},
		"one too few": {func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, `{"token":"`+good+`"}`) }, 2, "1 tokens in the answer, want 2"},
		"no JWT":      {func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, `{"token":"`+strings.Repeat("x", 60)+`"}`) }, 1, "no token in the answer"},
		"hangs up":    {func(http.ResponseWriter, int64) { panic(http.ErrAbortHandler) }, 1, "closed the connection"},
		"forged": {func(w http.ResponseWriter, n int64) {
			parts := strings.Split(good, ".")
			fmt.Fprintf(w, `{"token":"%s"}`, parts[0]+"."+parts[1]+"."+strings.Split(sign(fmt.Sprint(n)), ".")[2])
		}, 1, "does not verify"},
		"always the same": {func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, `{"token":"`+good+`"}`) }, 1, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := fake(t, tc.answer)
			cfg.Answer.Tokens = tc.tokens
			res, err := Run(cfg)
			if err == nil {
				_, err = Verify(res.Kept, "", jwks)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// A load that shall be refused counts it, and comes again when it is cut off.
func TestTolerates(t *testing.T) {
	sign, _ := issuer(t)
	cfg := fake(t, func(w http.ResponseWriter, n int64) {
		switch n % 3 {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			w.WriteHeader(429)
		default:
			fmt.Fprintf(w, `{"token":"%s"}`, sign(fmt.Sprint(n)))
		}
	})
	cfg.Tolerate = true
	res, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Tokens == 0 || res.Refused == 0 || res.Reconnects == 0 {
		t.Errorf("measured %+v, want tokens, refusals and reconnects", res)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	for share, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := h.quantile(share); got < want || got > want+want/100 {
			t.Errorf("quantile %v = %s, want %s and at most 1 %% more", share, got, want)
		}
	}
	for ns := uint64(1); ns < 1<<62; ns = ns*3/2 + 1 {
		if up := upper(bucket(ns)); uint64(up) < ns || float64(up) > float64(ns)*1.01 {
			t.Fatalf("%d ns fall into a bucket that ends at %d", ns, up)
		}
	}
}

// An answer that has come in part is not whole, wherever it was cut.
func TestParse(t *testing.T) {
	for name, doc := range map[string]string{
		"a length": "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"token\":1}\n",
		"chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"tok\r\n7\r\nen\":1}\n\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range len(doc) {
				if _, whole, err := parse([]byte(doc[:cut])); whole || err != nil {
					t.Fatalf("whole %v, %v after %q", whole, err, doc[:cut])
				}
			}
			ans, whole, err := parse([]byte(doc))
			if !whole || err != nil || ans.status != 200 || string(ans.body) != "{\"token\":1}\n" {
				t.Errorf("%d %q, whole %v, %v", ans.status, ans.body, whole, err)
			}
		})
	}
	for name, doc := range map[string]string{
		"more than it says": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
		"no length":         "HTTP/1.1 200 OK\r\n\r\n{}",
		"bad length":        "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n{}",
		"another protocol":  "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
		"a chunk too short": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}\r\n0\r\n\r\n",
	} {
		if _, _, err := parse([]byte(doc)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		ans, whole, err := parse(append([]byte(nil), doc...))
		if whole && err == nil && len(ans.body) > len(doc) {
			t.Errorf("a body of %d bytes in %d", len(ans.body), len(doc))
		}
	})
}
