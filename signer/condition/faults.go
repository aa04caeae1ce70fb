package condition

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// place says where in the text something is.
func place(text string, at common.Location) string {
	switch {
	case at == nil || at.Line() < 1:
		return ""
	case strings.Contains(strings.TrimSpace(text), "\n"):
		return fmt.Sprintf("line %d, column %d: ", at.Line(), at.Column()+1)
	}
	return fmt.Sprintf("column %d: ", at.Column()+1)
}

// faultList keeps each fault once: a macro unfolds to many nodes at one place.
type faultList struct {
	text  string
	said  []string
	errs  []error
	names Names
}

func (l *faultList) add(at common.Location, format string, args ...any) {
	message := place(l.text, at) + fmt.Sprintf(format, args...)
	if slices.Contains(l.said, message) {
		return
	}
	l.said = append(l.said, message)
	l.errs = append(l.errs, errors.New(message))
}

// syntaxFaults tells the first fault: the others follow from it.
func syntaxFaults(found []*cel.Error, text string) error {
	l := faultList{text: text}
	first := found[0]
	message, _, _ := strings.Cut(strings.TrimPrefix(first.Message, "Syntax error: "), " expecting ")
	message = strings.ReplaceAll(message, "'<EOF>'", "the end")
	switch {
	case strings.HasPrefix(message, "token recognition error at: '= "), strings.HasPrefix(message, "token recognition error at: '='"):
		message = "equality is written =="
	case message == "mismatched input 'and'", message == "mismatched input 'or'", message == "mismatched input 'not'", message == "extraneous input 'not'":
		message = "and is written &&, or is ||, not is !"
	case message == "mismatched input the end", message == "extraneous input the end":
		message = "it ends too early: a part is missing, or a bracket is not closed"
	}
	l.add(first.Location, "this is no CEL expression: %s", message)
	return errors.Join(l.errs...)
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
)

func typeFaults(found []*cel.Error, ast *cel.Ast, text string) error {
	l := faultList{text: text}
	for _, e := range found {
		if m := undeclared.FindStringSubmatch(e.Message); m != nil {
			l.add(e.Location, "%s", unknownName(m[1], isCall(ast, e.ExprID)))
			continue
		}
		if m := noOverload.FindStringSubmatch(e.Message); m != nil {
			l.add(e.Location, "%s does not take %s; numbers are int, write request.ttl_seconds <= 300 and claims.tenant == 'acme'", written(m[1]), m[2])
			continue
		}
		l.add(e.Location, "%s", e.Message)
	}
	return errors.Join(l.errs...)
}

// written is an operator or a function as an expression has it.
func written(function string) string {
	if name, ok := operators.FindReverse(function); ok && name != "" {
		return name
	}
	return function
}

// unknownName says what there is instead.
func unknownName(name string, call bool) string {
	if call {
		return fmt.Sprintf("there is no function %s; there are size, matches, startsWith, endsWith, contains, in, has, exists, all, and conversions such as string and int", name)
	}
	root, _, _ := strings.Cut(name, ".")
	var under, all []string
	for _, m := range members() {
		if member, ok := strings.CutPrefix(m.name, root+"."); ok {
			under = append(under, member)
		}
		all = append(all, m.name)
	}
	slices.Sort(under)
	switch {
	case len(under) > 0 && name == root:
		return fmt.Sprintf("%s is no value by itself: write %s.%s, or another of %s", root, root, under[0], strings.Join(under, ", "))
	case len(under) > 0:
		return fmt.Sprintf("there is no %s: %s has %s", name, root, strings.Join(under, ", "))
	}
	return fmt.Sprintf("there is no %s: a condition sees %s; text stands in quotes", name, strings.Join(all, ", "))
}

func isCall(ast *cel.Ast, id int64) bool {
	found := false
	celast.PreOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		found = found || e.ID() == id && e.Kind() == celast.CallKind
	}))
	return found
}

// houseRules refuses what CEL's types let through: a result that may be
// anything, a pattern that a caller could choose, a number that rounds, a claim
// that no token of the profile can have, a socket that there is not.
func houseRules(checked *cel.Ast, text string, known Known) (Names, error) {
	l := faultList{text: text}
	if t := checked.OutputType(); !t.IsExactType(types.BoolType) {
		hint := "compare it with something"
		if t.Kind() == types.DynKind {
			hint = "it may be anything; write … == true"
		}
		l.add(nil, "it gives %s, and has to give true or false: %s", cel.FormatCELType(t), hint)
	}
	rep := checked.NativeRep()
	celast.PreOrderVisit(rep.Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		at := rep.SourceInfo().GetStartLocation(e.ID())
		switch e.Kind() {
		case celast.StructKind:
			l.add(at, "there are no messages here, such as %s{}", e.AsStruct().TypeName())
		case celast.LiteralKind:
			if d, ok := e.AsLiteral().(types.Double); ok && (math.Abs(float64(d)) >= exact || math.IsNaN(float64(d))) {
				l.add(at, "a double of that size cannot be told apart from its neighbours; write a whole number without a point")
			}
		case celast.CallKind:
			l.call(at, e.AsCall())
			for _, text := range socketTexts(e.AsCall()) {
				l.socket(rep.SourceInfo().GetStartLocation(text.ID()), text, known)
			}
		}
		for _, n := range namesIn(e) {
			if n.at != nil {
				at = rep.SourceInfo().GetStartLocation(n.at.ID())
			}
			l.name(at, n, known)
		}
	}))
	return l.names, errors.Join(l.errs...)
}

func (l *faultList) call(at common.Location, call celast.CallExpr) {
	args := call.Args()
	if len(args) == 0 {
		return
	}
	last := args[len(args)-1]
	text, literal := types.String(""), false
	if last.Kind() == celast.LiteralKind {
		text, literal = last.AsLiteral().(types.String)
	}
	if call.FunctionName() != "matches" {
		return
	}
	if !literal {
		l.add(at, "matches takes a pattern that is written out, in quotes: a caller must not choose it")
	} else if _, err := regexp.Compile(string(text)); err != nil {
		l.add(at, "matches: %v", err)
	}
}

// name keeps a name, and asks whether there can be such a claim.
func (l *faultList) name(at common.Location, n name, known Known) {
	list := &l.names.Inner
	if n.ofClaim {
		list = &l.names.Claims
	}
	if !slices.Contains(*list, n.text) {
		*list = append(*list, n.text)
	}
	if !n.ofClaim || known.Claim == nil {
		return
	}
	if err := known.Claim(n.text); err != nil {
		l.add(at, "claims.%s: %v", n.text, err)
	}
}

func (l *faultList) socket(at common.Location, e celast.Expr, known Known) {
	name, ok := e.AsLiteral().(types.String)
	if known.Socket == nil || !ok {
		return
	}
	if err := known.Socket(string(name)); err != nil {
		l.add(at, "peer.socket: %v", err)
	}
}

// socketTexts are the literals that a call holds peer.socket against. A socket
// of another name is no fault of types, and the condition would be false, or
// true, for ever.
func socketTexts(call celast.CallExpr) []celast.Expr {
	args := call.Args()
	if len(args) != 2 {
		return nil
	}
	name, with := args[0], args[1:]
	switch call.FunctionName() {
	case operators.Equals, operators.NotEquals:
		if isName(args[1], socketName) {
			name, with = args[1], args[:1]
		}
	case operators.In:
		if args[1].Kind() != celast.ListKind {
			return nil
		}
		with = args[1].AsList().Elements()
	default:
		return nil
	}
	if !isName(name, socketName) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(with), func(e celast.Expr) bool { return e.Kind() != celast.LiteralKind })
}

func isName(e celast.Expr, name string) bool {
	return e.Kind() == celast.IdentKind && e.AsIdent() == name
}

// plain says in few words why an evaluation failed, and keeps what the library
// repeats of a request to itself: the name of a key, too, unless the expression
// holds it.
func (c *Condition) plain(err error) error {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it took longer than %s", maxTime)
	}
	if name, ok := strings.CutPrefix(text, "no such key: "); ok && name != "" && strings.Contains(c.text, name) {
		return fmt.Errorf("no such key: %s", name)
	}
	for _, words := range []string{
		"no such key", "no such overload", "division by zero", "modulus by zero", "overflow", "cost limit exceeded", "out of bounds", "out of range", "type conversion error",
	} {
		if strings.Contains(text, words) {
			return errors.New(words)
		}
	}
	return errors.New("a value does not fit")
}
