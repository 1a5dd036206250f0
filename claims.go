package valetkey

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// DeclareClaims declares T as the type into which a guard decodes the claims of its tokens. The guard decodes once per token, not
// once per request. One package variable connects the type, the guard and the handlers:
//
//	type OrderClaims struct {
//		Tenant string                `json:"tenant"`
//		Roles  valetkey.List[string] `json:"roles"`
//	}
//
//	var orders = valetkey.DeclareClaims[OrderClaims]()
//
//	guard, err := middleware.New(middleware.Config{Verifier: verifier, Claims: orders})
//
//	claims, ok := orders.From(r.Context()) // in a handler
//
// The guard refuses a token with 401 invalid_token if [Token.Claims] cannot decode its claims into T, or if T or *T has a method
// Validate() error and that method returns an error.
//
// Requests with the same token share the decoded value, so a handler must not be able to change it for the others. T must be a
// struct and must not contain a slice, map, pointer, interface, function or channel; [List], [Scopes] and [time.Time] are allowed.
// A T with a method Clone() T may contain anything: From then returns a clone. The guard's constructor reports a T that breaks
// these rules.
func DeclareClaims[T any]() *ClaimsOf[T] { return &ClaimsOf[T]{} }

// ClaimsOf connects a claims type, a guard and its handlers. [DeclareClaims] creates one. Two ClaimsOf are different, even for the
// same T. It is safe for concurrent use.
type ClaimsOf[T any] struct {
	_ byte // without a field, two of them could have the same address
}

// Claims is a [ClaimsOf] of any type, for middleware.Config. No other type implements it.
type Claims interface {
	// Check returns an error if the type is not suitable, see [DeclareClaims].
	Check() error

	// Decode returns the value that From returns, and its approximate size in bytes. An error refuses the token.
	Decode(t *Token) (decoded any, bytes int, err error)

	declared()
}

// From returns the claims of the request that ctx belongs to. It returns false if the request has no token, or if the guard that
// accepted it does not have c as its Claims. It does not allocate unless T has a method Clone.
func (c *ClaimsOf[T]) From(ctx context.Context) (T, bool) {
	claims, ok := ctx.Value(c).(*T)
	if !ok {
		var none T
		return none, false
	}
	if cloner, ok := any(claims).(interface{ Clone() T }); ok {
		return cloner.Clone(), true
	}
	return *claims, true
}

// NewContext returns a context from which From returns claims. It is for handlers under test.
func (c *ClaimsOf[T]) NewContext(ctx context.Context, claims T) context.Context {
	return context.WithValue(ctx, c, &claims)
}

// Check returns an error if T is not a struct, or if a handler could change the claims for other requests with the same token. It
// implements [Claims].
func (c *ClaimsOf[T]) Check() error {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%v is not a struct", t)
	}
	if _, ok := any(new(T)).(interface{ Clone() T }); ok {
		return nil
	}
	if path := changeable(t, t.String()); path != "" {
		return fmt.Errorf("%s can be changed by a handler: use valetkey.List, or give %v a method Clone() %v", path, t, t)
	}
	return nil
}

// Decode decodes the claims of t into a new T and calls its Validate method, if there is one. It returns an error if t carries no
// claims. It implements [Claims].
func (c *ClaimsOf[T]) Decode(t *Token) (decoded any, bytes int, err error) {
	claims := new(T)
	if t.fields.Raw == "" {
		return nil, 0, errors.New("the token carries no claims")
	}
	if err := unmarshal(t.fields.Raw, claims); err != nil {
		return nil, 0, err
	}
	if v, ok := any(claims).(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, 0, err
		}
	}
	return claims, int(reflect.TypeFor[T]().Size()) + sizeOf(reflect.ValueOf(claims).Elem(), maxDepth), nil
}

func (c *ClaimsOf[T]) declared() {}

// immutable is implemented by the types of this package that hold a slice and cannot be changed.
type immutable interface{ elem() reflect.Type }

func (l List[T]) elem() reflect.Type { return reflect.TypeFor[T]() }
func (s Scopes) elem() reflect.Type  { return reflect.TypeFor[string]() }

var immutableType, timeType, locationType = reflect.TypeFor[immutable](), reflect.TypeFor[time.Time](), reflect.TypeFor[*time.Location]()

// changeable returns the path to a part of t that can be changed through a copy of it; "" if there is none.
func changeable(t reflect.Type, path string) string {
	switch {
	case t == timeType: // its pointer is to a time.Location, which has no exported way to change
		return ""
	case t.Implements(immutableType) && t.Kind() == reflect.Struct && t.PkgPath() == immutableType.PkgPath():
		return changeable(reflect.Zero(t).Interface().(immutable).elem(), path+"[i]")
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if found := changeable(f.Type, path+"."+f.Name); found != "" {
				return found
			}
		}
		return ""
	case reflect.Array:
		return changeable(t.Elem(), path+"[i]")
	case reflect.Slice, reflect.Map, reflect.Pointer, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return path
	default:
		return ""
	}
}

// maxDepth is the depth to which sizeOf follows references. It is deeper than the JSON that a verifier accepts. It is needed
// because a Validate method could create a cycle.
const maxDepth = 100

// sizeOf returns the approximate number of bytes that v refers to.
func sizeOf(v reflect.Value, depth int) (bytes int) {
	if depth--; depth < 0 {
		return 0
	}
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Struct:
		for i := range v.NumField() {
			bytes += sizeOf(v.Field(i), depth)
		}
	case reflect.Slice:
		bytes = v.Cap() * int(v.Type().Elem().Size())
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			bytes += sizeOf(v.Index(i), depth)
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			bytes += 2 * int(v.Type().Key().Size()+v.Type().Elem().Size()) // including the free space in a map
			bytes += sizeOf(entries.Key(), depth) + sizeOf(entries.Value(), depth)
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() && v.Type() != locationType {
			bytes = int(v.Elem().Type().Size()) + sizeOf(v.Elem(), depth)
		}
	}
	return bytes
}
