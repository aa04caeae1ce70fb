package condition

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Bounds of what an expression looks at.
const (
	// maxItems is how many values the claims hold together, and the longest list.
	maxItems = 1024
	// maxString is the longest text in a claim, in bytes.
	maxString = 2048
)

const socketName = "peer.socket"

// member is a name that an expression may use, with the most that its value
// can measure: bytes of a text, items of a list.
type member struct {
	name string
	kind *cel.Type
	size uint64
}

// members are all names. Those with a dot are one name to CEL, so that no
// message type has to be made of them, and peer.uidd is a name that is not there.
func members() []member {
	return []member{
		{"claims", cel.MapType(cel.StringType, cel.DynType), maxItems},
		{"peer.uid", cel.IntType, 1},
		{"peer.gid", cel.IntType, 1},
		{"peer.groups", cel.ListType(cel.IntType), maxItems},
		{socketName, cel.StringType, 63},
		{"request.profile", cel.StringType, 128},
		{"request.subject", cel.StringType, 1024},
		{"request.audience", cel.ListType(cel.StringType), 100},
		{"request.ttl_seconds", cel.IntType, 1},
	}
}

// timeFunctions are left out: there is no clock to compare with, and getHours
// with a zone reads files.
func timeFunctions() []*env.Function {
	var out []*env.Function
	for _, name := range []string{
		"timestamp", "duration", "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek",
		"getHours", "getMinutes", "getSeconds", "getMilliseconds",
	} {
		out = append(out, env.NewFunction(name))
	}
	return out
}

func newEnv() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(timeFunctions()...))),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxText), cel.ParserRecursionLimit(maxDepth), cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
	}
	for _, m := range members() {
		options = append(options, cel.Variable(m.name, m.kind))
	}
	return cel.NewCustomEnv(options...)
}

// variables hands out an input by the names of members. What an expression
// does not name is not made.
type variables struct {
	in     Input
	claims map[string]any
}

func (*variables) Parent() cel.Activation { return nil }

func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case "claims":
		return types.NewStringInterfaceMap(types.DefaultTypeAdapter, v.claims), true
	case "peer.uid":
		return types.Int(v.in.Peer.UID), true
	case "peer.gid":
		return types.Int(v.in.Peer.GID), true
	case "peer.groups":
		groups := make([]ref.Val, len(v.in.Peer.Groups))
		for i, g := range v.in.Peer.Groups {
			groups[i] = types.Int(g)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, groups), true
	case socketName:
		return types.String(v.in.Peer.Socket), true
	case "request.profile":
		return types.String(v.in.Request.Profile), true
	case "request.subject":
		return types.String(v.in.Request.Subject), true
	case "request.audience":
		return types.NewStringList(types.DefaultTypeAdapter, v.in.Request.Audience), true
	case "request.ttl_seconds":
		return types.Int(v.in.Request.TTLSeconds), true
	}
	return nil, false
}

// sizes tells the estimator of cost the largest that each value can be.
type sizes struct{}

// EstimateCallCost leaves calls to the standard model.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// EstimateSize is nil where the expression itself says the size.
func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if n.ComputedSize() != nil {
		return nil
	}
	most := uint64(maxString) // what stands in a claim, be it a text or a list
	path := n.Path()
	for _, m := range members() {
		if root := strings.Join(path, "."); len(path) > 0 && (root == m.name || path[0] == m.name && len(path) == 1) {
			most = m.size
		}
	}
	return &cost.SizeEstimate{Min: 0, Max: most}
}
