package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey"
)

type orders struct{}

func (orders) about(context.Context) string { return "orders" }
func (orders) list(ctx context.Context) string {
	return "the orders of " + valetkey.FromContext(ctx).Subject()
}
func (orders) place(ctx context.Context) string {
	return "placed by " + valetkey.FromContext(ctx).Subject()
}

// ordersService replaces the output of protoc-gen-go-grpc: three methods that take a google.protobuf.Empty and return a
// google.protobuf.StringValue.
var ordersService = grpc.ServiceDesc{
	ServiceName: "orders.v1.Orders",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{method("About", orders.about), method("List", orders.list), method("Place", orders.place)},
}

func method(name string, answer func(orders, context.Context) string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(s any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := new(emptypb.Empty)
		if err := decode(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, _ any) (any, error) { return wrapperspb.String(answer(s.(orders), ctx)), nil }
		if intercept == nil {
			return call(ctx, in)
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: s, FullMethod: "/orders.v1.Orders/" + name}, call)
	}}
}
