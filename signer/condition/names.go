package condition

import (
	"slices"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// name is one that an expression looks for in the claims.
type name struct {
	text string
	// ofClaim: it is that of a claim, else of something within one, or of
	// something that the text does not tell.
	ofClaim bool
	// at is where it stands, where that is not the expression that uses it.
	at celast.Expr
}

// namesIn are the names that one expression looks for, not those of its parts.
func namesIn(e celast.Expr) []name {
	switch e.Kind() {
	case celast.SelectKind: // has(claims.x), too
		return []name{{text: e.AsSelect().FieldName(), ofClaim: isClaims(e.AsSelect().Operand())}}
	case celast.MapKind: // what claims, or a part of them, may be compared with
		return keysOf(e, false)
	case celast.ComprehensionKind:
		return namesInLoop(e.AsComprehension())
	case celast.CallKind:
		return namesInCall(e.AsCall())
	}
	return nil
}

func namesInCall(call celast.CallExpr) []name {
	args := call.Args()
	if len(args) != 2 {
		return nil
	}
	left, right := args[0], args[1]
	switch call.FunctionName() {
	case operators.Index:
		return texts(isClaims(left), nil, right)
	case operators.In:
		if isList(right) {
			return nil
		}
		return texts(isClaims(right), left, left)
	case operators.Equals, operators.NotEquals:
		if isClaims(left) {
			return keysOf(right, true)
		}
		if isClaims(right) {
			return keysOf(left, true)
		}
	}
	return nil
}

// namesInLoop are the texts that a loop compares its variable with: over an
// object, that is a name.
func namesInLoop(loop celast.ComprehensionExpr) []name {
	if isList(loop.IterRange()) {
		return nil
	}
	var out []name
	ofClaim := isClaims(loop.IterRange())
	celast.PreOrderVisit(loop.LoopStep(), celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		switch e.AsCall().FunctionName() {
		case operators.Equals, operators.NotEquals:
			if isName(right, loop.IterVar()) {
				left, right = right, left
			}
			if isName(left, loop.IterVar()) {
				out = append(out, texts(ofClaim, right, right)...)
			}
		case operators.In:
			if isName(left, loop.IterVar()) && right.Kind() == celast.ListKind {
				for _, item := range right.AsList().Elements() {
					out = append(out, texts(ofClaim, item, item)...)
				}
			}
		}
	}))
	return out
}

// isClaims reports whether an expression is claims itself, be it as dyn(claims).
func isClaims(e celast.Expr) bool {
	for e.Kind() == celast.CallKind && e.AsCall().FunctionName() == "dyn" && len(e.AsCall().Args()) == 1 {
		e = e.AsCall().Args()[0]
	}
	return isName(e, "claims")
}

// isList reports whether an expression is surely a list: one that is written
// out, or one of members, of which claims alone is an object.
func isList(e celast.Expr) bool {
	return e.Kind() == celast.ListKind || e.Kind() == celast.IdentKind && !isName(e, "claims") &&
		slices.ContainsFunc(members(), func(m member) bool { return isName(e, m.name) })
}

// texts is the name that a literal is.
func texts(ofClaim bool, at, e celast.Expr) []name {
	if e.Kind() != celast.LiteralKind {
		return nil
	}
	text, ok := e.AsLiteral().(types.String)
	if !ok {
		return nil
	}
	return []name{{string(text), ofClaim, at}}
}

func keysOf(e celast.Expr, ofClaim bool) []name {
	if e.Kind() != celast.MapKind {
		return nil
	}
	var out []name
	for _, entry := range e.AsMap().Entries() {
		key := entry.AsMapEntry().Key()
		out = append(out, texts(ofClaim, key, key)...)
	}
	return out
}
