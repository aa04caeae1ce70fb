package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// TestSocketsAreCapabilities: a profile that names a socket is there for those
// who come through it and for nobody else, whoever they are: to sign, in a
// batch, and in the list. Modes and groups say who comes through.
func TestSocketsAreCapabilities(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h").
		edit(`mode: "0660"}]`, `mode: "0666"}, {name: apps, path: apps/apps.sock, mode: "0660", group: "4300"}]`)
	head, _, _ := strings.Cut(s.text, "profiles:\n")
	s.text = head + `profiles:
  - {name: root, ring: web, allow: [{uid: 0}], subject: {fixed: root}, audiences: [demo]}
  - {name: everybody, ring: web, allow: [{socket: default}], subject: {fixed: any}, audiences: [demo]}
  - {name: apps, ring: web, allow: [{socket: apps}], subject: {fixed: app}, audiences: [demo]}
  - {name: appsone, ring: web, allow: [{socket: apps, uid: 4201}], subject: {fixed: app1}, audiences: [demo]}
audit: {file: audit.jsonl}
`
	s.startFor("root")
	one, two, outside := someone{4201, 4201, []int{4300}}, someone{4202, 4300, nil}, someone{4203, 4203, nil}
	profiles := []string{"everybody", "apps", "appsone", "nothere"}
	var batch []string
	for _, p := range profiles {
		batch = append(batch, `{"profile":"`+p+`"}`)
	}
	for _, tc := range []struct {
		who    someone
		socket string
		may    string // of profiles
	}{
		{one, "sign.sock", "everybody"}, {one, "apps/apps.sock", "apps appsone"},
		{two, "sign.sock", "everybody"}, {two, "apps/apps.sock", "apps"},
		{outside, "sign.sock", "everybody"}, {outside, "apps/apps.sock", "none"},
	} {
		status, body := tc.who.curl(t, s.path(tc.socket), "/v1/profiles")
		if tc.may == "none" {
			if status != 0 {
				t.Errorf("%s through %s: %d %s", tc.who, tc.socket, status, body)
			}
			continue
		}
		var list api.Profiles
		must(t, json.Unmarshal([]byte(body), &list))
		var names []string
		for _, p := range list.Profiles {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); status != 200 || got != tc.may {
			t.Errorf("%s through %s sees %q, want %q", tc.who, tc.socket, got, tc.may)
		}
		_, body = tc.who.curl(t, s.path(tc.socket), "/v1/sign/batch", "-d", `{"requests":[`+strings.Join(batch, ",")+`]}`)
		var results api.BatchResponse
		must(t, json.Unmarshal([]byte(body), &results))
		refusals := map[string]bool{}
		for i, p := range profiles {
			may := strings.Contains(" "+tc.may+" ", " "+p+" ")
			alone, _ := tc.who.curl(t, s.path(tc.socket), "/v1/sign", "-d", batch[i])
			r := results.Results[i]
			if may != (alone == 200) || may != (r.Error == nil) {
				t.Errorf("%s through %s for %s: %d alone, %+v in a batch", tc.who, tc.socket, p, alone, r)
			}
			if r.Error != nil {
				refusals[string(r.Error.Code)+" "+r.Error.Detail] = true
			}
		}
		if len(refusals) > 1 {
			t.Errorf("refusals differ: %v", refusals)
		}
	}
}
