package cli

import (
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/keyturn/keyturn/api"
)

// FuzzAnswer: whatever answers on a socket, the command line says it in one
// printable line and ends with an exit code of ours.
func FuzzAnswer(f *testing.F) {
	f.Add(403, "", []byte(`{"code":"forbidden","detail":"no","title":"t","status":403}`))
	f.Add(503, "99999999999999999999", []byte(`{"code":"unavailable","detail":"\u001b[2J\u202e","safe_at":"2027-01-01T00:00:00Z"}`))
	f.Add(429, "5", []byte(`{"code":"rate_limited","code":"forbidden"}`))
	f.Add(200, "", []byte(`{"token":"a.b.c","kid":"k","expires_at":"x","expires_in":1e99}`))
	f.Add(500, "", []byte("<html>\x00"))
	c := client{path: "/run/keyturn/sign.sock", flag: "--socket", env: "KEYTURN_SOCKET"}
	f.Fuzz(func(t *testing.T, status int, after string, body []byte) {
		var out api.SignResponse
		if err := c.decode(body, &out); err != nil {
			oneLine(t, err)
		}
		if status == http.StatusOK {
			return
		}
		err := c.refused("/v1/sign", &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{"Retry-After": {after}}}, body)
		if err == nil {
			t.Fatal("a refusal became nil")
		}
		oneLine(t, err)
	})
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if i := strings.IndexFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("not one printable line: %q", err)
	}
}
