package condition

import "testing"

// BenchmarkEval is what a condition adds to one decision.
func BenchmarkEval(b *testing.B) {
	in := input("tenant", `"acme"`, "roles", `["reader","writer","admin"]`)
	for name, text := range map[string]string{
		"peer":   `peer.uid == 1000`,
		"tenant": `claims.tenant in ['acme', 'globex']`,
		"roles":  `claims.roles.exists(r, r == 'admin') && request.ttl_seconds <= 300`,
	} {
		b.Run(name, func(b *testing.B) {
			c := mustCompile(b, text)
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := c.Eval(in); !ok {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWorst is the dearest that this expression can be made.
func BenchmarkWorst(b *testing.B) {
	c := mustCompile(b, `claims.list.exists(r, r.startsWith('adminx') && r == 'y')`)
	list := []byte{'['}
	for range maxItems - 2 {
		list = append(list, `"adminx",`...)
	}
	in := input("list", string(list)+`"z"]`)
	for b.Loop() {
		if ok, err := c.Eval(in); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, `claims.tenant in ['acme', 'globex'] && peer.uid == 1000`)
	}
}
