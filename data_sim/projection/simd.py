"""Sums of rows of numbers as vector instructions: the inner loops of all projection kernels.

A block of slices is an array (points, width): the values of one pixel or one detector bin for `width` lanes side by
side. Everything that a projector does to it is a weighted sum over pairs of neighbouring rows, or its transpose. LLVM
unrolls such short loops into scalar code, so that they are written here as vectors of `width` floats; the sums stay
in registers.

Kernels that use these functions are cached on disk by their own file's date: delete the cache after a change here.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_INT = ir.IntType(64)
_FLOAT = ir.FloatType()


class _Emitter:
    """Writes loads, stores and multiply-adds of `width` floats."""

    def __init__(self, context, builder, width: int) -> None:
        self.context, self.builder, self.width = context, builder, width
        self.vector = ir.VectorType(_FLOAT, width)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.muladd = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{width}f32")

    def data(self, array_type, array):
        """The pointer to an array's numbers."""
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def row(self, pointer, index):
        """The pointer to row `index`, as a vector."""
        first = self.builder.gep(pointer, [self.builder.mul(index, ir.Constant(_INT, self.width))])
        return self.builder.bitcast(first, self.vector.as_pointer())

    def load(self, pointer):
        return self.builder.load(pointer, align=4)

    def store(self, value, pointer) -> None:
        self.builder.store(value, pointer, align=4)

    def item(self, pointer, index):
        """One number of an array."""
        return self.builder.load(self.builder.gep(pointer, [index]))

    def next(self, index):
        return self.builder.add(index, ir.Constant(_INT, 1))

    def splat(self, number):
        """A vector that repeats one number."""
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), self.width), None))

    def add_product(self, weight, value, total):
        return self.builder.call(self.muladd, [weight, value, total])


def _signature(width, out, source, rows, weights):
    return types.void(out, types.intp, source, rows, weights, weights, types.intp, types.intp, types.intp, width)


@intrinsic(prefer_literal=True)
def gather(typingctx, out, at, source, rows, w0, w1, first, count, stride, width):
    """``out[at] += sum of w0[k] source[rows[k]] + w1[k] source[rows[k] + 1]``, k = first + i stride, i < count.

    Parameters
    ----------
    out, source : float32 (points, width), C order
    at, first, count, stride : int
    rows : int32 (n,)
    w0, w1 : float32 (n,)
    width : int
        A constant of the compilation.
    """

    def codegen(context, builder, signature, args):
        emit = _Emitter(context, builder, width.literal_value)
        types_ = signature.args
        pointer, data = emit.data(types_[0], args[0]), emit.data(types_[2], args[2])
        rows_, w0_, w1_ = (emit.data(types_[n], args[n]) for n in (3, 4, 5))
        # two sums, so that one addition need not wait for the other
        sums = [cgutils.alloca_once(builder, emit.vector) for _ in range(2)]
        for total in sums:
            builder.store(ir.Constant(emit.vector, None), total)
        with cgutils.for_range(builder, args[7]) as loop:
            k = builder.add(args[6], builder.mul(loop.index, args[8]))
            row = builder.sext(emit.item(rows_, k), _INT)
            for total, weights, place in ((sums[0], w0_, row), (sums[1], w1_, emit.next(row))):
                weight = emit.splat(emit.item(weights, k))
                builder.store(emit.add_product(weight, emit.load(emit.row(data, place)), builder.load(total)), total)
        target = emit.row(pointer, args[1])
        both = builder.fadd(builder.load(sums[0]), builder.load(sums[1]))
        emit.store(builder.fadd(emit.load(target), both), target)
        return context.get_dummy_value()

    return _signature(width, out, source, rows, w0), codegen


@intrinsic(prefer_literal=True)
def scatter(typingctx, out, at, source, rows, w0, w1, first, count, stride, width):
    """The transpose of `gather`: ``out[rows[k]] += w0[k] source[at]``, ``out[rows[k] + 1] += w1[k] source[at]``."""

    def codegen(context, builder, signature, args):
        emit = _Emitter(context, builder, width.literal_value)
        types_ = signature.args
        pointer, data = emit.data(types_[0], args[0]), emit.data(types_[2], args[2])
        rows_, w0_, w1_ = (emit.data(types_[n], args[n]) for n in (3, 4, 5))
        value = emit.load(emit.row(data, args[1]))
        with cgutils.for_range(builder, args[7]) as loop:
            k = builder.add(args[6], builder.mul(loop.index, args[8]))
            row = builder.sext(emit.item(rows_, k), _INT)
            for weights, place in ((w0_, row), (w1_, emit.next(row))):
                target = emit.row(pointer, place)
                weight = emit.splat(emit.item(weights, k))
                emit.store(emit.add_product(weight, value, emit.load(target)), target)
        return context.get_dummy_value()

    return _signature(width, out, source, rows, w0), codegen
