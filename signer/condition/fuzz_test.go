package condition

import (
	"testing"

	"github.com/keyturn/keyturn/internal/strictjson"
)

// FuzzCompile holds up, for whatever is written: no panic, a fault or a
// condition, and a condition that comes to an end, whatever it is asked.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`claims.tenant in ['acme', 'globex'] && peer.uid == 1000`, `claims.roles.exists(r, r == 'x')`, `claims.s.matches('^a+$')`,
		`{'a': [1, 2u, 3.5, b'x', null]}.a.size() > 1`, `claims.all(k, claims[k] == 1)`, `has(claims.a.b) ? claims.a.b : true`,
		`google.protobuf.Int32Value{value: 1} == 1`, `[1].map(x, x * 2)[0] == 2`, `string(bytes('\u00fc')) == 'x'`, `dyn(1) == type(1)`,
	} {
		f.Add(text)
	}
	in := input("tenant", `"acme"`, "roles", `["a",{"b":[1.5,null,true]}]`, "a", `{"b":true}`, "s", `"aaa"`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Compile(text, Known{})
		if (c == nil) == (err == nil) {
			t.Fatalf("Compile = %v, %v", c, err)
		}
		if err != nil {
			return
		}
		for _, in := range []Input{in, {}} {
			first, err := c.Eval(in)
			if err != nil && first {
				t.Fatalf("allowed with %v", err)
			}
			if again, _ := c.Eval(in); again != first {
				t.Fatalf("%v, and then %v", first, again)
			}
		}
	})
}

// FuzzEval holds up, for whatever claim is sent: no panic, and what is allowed
// is what the condition says of the same value by other ways.
func FuzzEval(f *testing.F) {
	for _, raw := range []string{`"acme"`, `"\u0061cme"`, `1`, `1.0`, `1e0`, `[1,"acme"]`, `{"acme":1}`, `null`, `-0.0`, `1e-9`, `9007199254740993.0`, `"`} {
		f.Add([]byte(raw))
	}
	one, acme := mustCompile(f, `claims.c == 1`), mustCompile(f, `claims.c == 'acme'`)
	either := mustCompile(f, `claims.c == 1 || claims.c == 'acme'`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 || strictjson.Check(raw) != nil {
			return // the signer lets no such claim through
		}
		in := Input{Claims: pairs("c", string(raw))}
		isOne, err := one.Eval(in)
		isAcme, err2 := acme.Eval(in)
		both, err3 := either.Eval(in)
		if isOne && isAcme || both != (isOne || isAcme) || (err == nil) != (err2 == nil) || (err == nil) != (err3 == nil) {
			t.Fatalf("%s: one %v (%v), acme %v (%v), either %v (%v)", raw, isOne, err, isAcme, err2, both, err3)
		}
		var text string
		if strictjson.Unmarshal(raw, &text) == nil && err == nil && isAcme != (text == "acme") && raw[0] == '"' {
			t.Fatalf("%s: acme %v", raw, isAcme)
		}
	})
}
