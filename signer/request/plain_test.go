package request

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyturn/keyturn/api"
)

// plainForms are requests, and whether the plain reader takes them.
var plainForms = map[string]bool{
	`{}`:                             true,
	` { "profile" : "p" } ` + "\r\n": true,
	`{"profile":"p","subject":"u","audience":"a","ttl_seconds":300,"claims":{"a":"b","c":[1,"x",null,true],"d":-7,"e":false}}`: true,
	`{"profile":"p","audience":["a","b"],"claims":{}}`:                                                                         true,
	`{"profile":"p","audience":[]}`: true,
	`{"claims":{"b":1,"a":2}}`:      true,
	// Sound, and left to the other reader.
	`{"profile":"\u0070"}`:                   false,
	`{"profile":"é"}`:                        false,
	`{"profile":null}`:                       false,
	`{"claims":null}`:                        false,
	`{"ttl_seconds":-5}`:                     false,
	`{"ttl_seconds":1234567890}`:             false,
	`{"claims":{"a":{"b":1}}}`:               false,
	`{"claims":{"a":[[1]]}}`:                 false,
	`{"claims":{"a":1.5,"b":1e3}}`:           false,
	`{"claims":{"a":123456789012345678901}}`: true,
	// Not sound.
	``:                               false,
	`{`:                              false,
	`{"profile":"p"`:                 false,
	`{"profile":"p",}`:               false,
	`{"profile":"p"} x`:              false,
	`{"profile":"p","profile":"q"}`:  false,
	`{"Profile":"p"}`:                false,
	`{"profile":"p","iss":"x"}`:      false,
	`{"claims":{"a":1,"a":2}}`:       false,
	`{"claims":{"b":1,"a":2,"b":3}}`: false,
	`{"claims":{"a":01}}`:            false,
	`{"claims":{"a":-}}`:             false,
	`{"claims":{"a":[1,]}}`:          false,
	`{"claims":{"a":[,1]}}`:          false,
	`{"claims":{"a":tru}}`:           false,
	`{"claims":{"a":truex}}`:         false,
	`{"claims":{"a":nullnull}}`:      false,
	`{"ttl_seconds":007}`:            false,
	`{"ttl_seconds":"7"}`:            false,
	`{"audience":["a",1]}`:           false,
	`{"audience":"a" "b"}`:           false,
	"{\"profile\":\"a\tb\"}":         false,
	"{\"profile\":\"a\x00b\"}":       false,
	"{\"profile\":\"a\x7f\"}":        false,
	"\ufeff{}":                       false,
	`[]`:                             false,
	`{"profile":"p"}{"profile":"p"}`: false,
	`{"profile" "p"}`:                false,
	`{profile:"p"}`:                  false,
	`{'profile':'p'}`:                false,
	`{"claims":{"a":1}/**/}`:         false,
	`{"claims":{"a":+1}}`:            false,
	`{"claims":{"a":.5}}`:            false,
	`{"claims":{"a":NaN}}`:           false,
	`{"claims":{"a":1 2}}`:           false,
	// An attempt that failed must not go on with another one from where it stopped.
	`{"claims":{"x":-["a"]}}`:            false,
	`{"claims":{"x":01[1]}}`:             false,
	`{"claims":{"x":t["a"]}}`:            false,
	"{\"claims\":{\"x\":\"abc\t[1]}}":    false,
	"{\"claims\":{\"x\":\"abc\n[1]}}":    false,
	"{\"claims\":{\"x\":\"\\[1]}}":       false,
	"{\"claims\":{\"x\":[\"a\t,\"b\"]}}": false,
	"{\"audience\":\"x\t[\"a\"]}":        false,
	`{"audience":-["a"]}`:                false,
	`{"claims":{"x":[-]}}`:               false,
	`{"claims":{"x":[1[2]]}}`:            false,
	`{"claims":{"":1}}`:                  true,
	`{"claims":{"a":"<&>"}}`:             true,
	"{\"claims\":{\"a\":\n[ \"x\" ]}}":   true,
}

// Long lists are left to the other reader.
func TestPlainBounds(t *testing.T) {
	for n, plain := range map[int]bool{maxPlainItems: true, maxPlainItems + 1: false} {
		var audience, claims []string
		for i := range n {
			audience, claims = append(audience, fmt.Sprintf(`"a%d"`, i)), append(claims, fmt.Sprintf(`"c%d":%d`, i, i))
		}
		for _, body := range []string{`{"audience":[` + strings.Join(audience, ",") + `]}`, `{"claims":{` + strings.Join(claims, ",") + `}}`} {
			if got := checkPlain(t, []byte(body)); got != plain {
				t.Errorf("%d items: plain %t, want %t", n, got, plain)
			}
		}
	}
}

func TestPlain(t *testing.T) {
	for body, plain := range plainForms {
		if got := checkPlain(t, []byte(body)); got != plain {
			t.Errorf("%q: plain %t, want %t", body, got, plain)
		}
	}
}

// checkPlain holds the plain reader against the general one, which has to read
// the same out of what the former takes.
func checkPlain(t *testing.T, body []byte) bool {
	t.Helper()
	var got Entry
	s := newScan(body)
	if !got.scan(&s) || !s.end() {
		return false
	}
	want := parseAny(body)
	if want.Problem != nil {
		t.Errorf("%q is read as plain, but %v", body, want.Problem)
		return true
	}
	if diff := cmp.Diff(want.Request, got.Request, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%q (-general +plain):\n%s", body, diff)
	}
	return true
}

// TestPlainAtRandom makes requests of fragments that matter to a reader of
// JSON, most of them broken, and so finds in a second what a fuzzer without a
// grammar needs long for.
func TestPlainAtRandom(t *testing.T) {
	fragments := []string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `"a"`, `"b"`, `"`, "\t", "\n", " ", `\`, `\"`, `-`, `0`, `1`, `01`, `-0`, `1.5`, `1e3`, `.`, `t`, `true`, `false`,
		`null`, `n`, "\x00", "é", "\xff", `/`, `'`, `"profile":`, `"audience":`, `"claims":`, `"ttl_seconds":`, `"subject":`, `"x":`, `["a"]`, `{"a":1}`,
	}
	frames := [][2]string{{``, ``}, {`{"claims":{"x":`, `}}`}, {`{"audience":`, `}`}, {`{"claims":{`, `}}`}, {`{"ttl_seconds":`, `}`}, {`{`, `}`}, {`{"subject":"`, `"}`}}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	plain := 0
	for range 300_000 {
		frame := frames[r.IntN(len(frames))]
		body := frame[0]
		for range r.IntN(6) {
			body += fragments[r.IntN(len(fragments))]
		}
		body += frame[1]
		if checkPlain(t, []byte(body)) {
			plain++
		}
		if checkPlainBatch(t, []byte(`{"requests":[{},`+body+`]}`)); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if plain < 1000 {
		t.Errorf("%d of the requests were plain: too few to tell", plain)
	}
}

func FuzzPlain(f *testing.F) {
	for body := range plainForms {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkPlain(t, body) })
}

func TestPlainBatch(t *testing.T) {
	long := `{"profile":"` + strings.Repeat("p", maxPlainEntry) + `"}`
	for body, plain := range map[string]bool{
		`{"requests":[]}`: true,
		` {"requests" : [ {} , {"profile":"p"} ] } `:                     true,
		`{"requests":[{}` + strings.Repeat(`,{}`, api.MaxBatch-1) + `]}`: true,
		`{"requests":[{}` + strings.Repeat(`,{}`, api.MaxBatch) + `]}`:   false,
		`{"requests":[` + long + `]}`:                                    false,
		`{"requests":[{},]}`:                                             false,
		`{"requests":[{} {}]}`:                                           false,
		`{"requests":[{}]`:                                               false,
		`{"requests":[{}]}]`:                                             false,
		`{"requests":[{}],"requests":[]}`:                                false,
		`{"requests":[{"profile":"p"},{"profile":1}]}`:                   false,
		`{"requests":null}`:                                              false,
		`{"Requests":[]}`:                                                false,
		``:                                                               false,
	} {
		if got := checkPlainBatch(t, []byte(body)); got != plain {
			t.Errorf("%.80q: plain %t, want %t", body, got, plain)
		}
	}
}

func checkPlainBatch(t *testing.T, body []byte) bool {
	t.Helper()
	got, ok := scanBatch(body)
	if !ok {
		return false
	}
	want, prob := parseAnyBatch(body)
	if prob != nil {
		t.Errorf("%q is read as plain, but %v", body, prob)
		return true
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%q (-general +plain):\n%s", body, diff)
	}
	return true
}

func FuzzPlainBatch(f *testing.F) {
	for body := range plainForms {
		f.Add([]byte(`{"requests":[` + body + `]}`))
		f.Add([]byte(fmt.Sprintf(`{"requests":[%s , %s]}`, body, body)))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkPlainBatch(t, body) })
}

// What is not an array, or holds too much, is told so.
func TestBatchRefused(t *testing.T) {
	for body, want := range map[string]api.Code{
		`{}`:                api.InvalidRequest,
		`{"requests":null}`: api.InvalidRequest,
		`{"requests":{}}`:   api.InvalidRequest,
		`{"requests":[0` + strings.Repeat(",0", api.MaxBatch) + `]}`:   api.TooLarge,
		`{"requests":[{}` + strings.Repeat(",{}", api.MaxBatch) + `]}`: api.TooLarge,
	} {
		if _, prob := ParseBatch([]byte(body)); prob == nil || prob.Code != want {
			t.Errorf("%.40q: %v, want %s", body, prob, want)
		}
	}
}
