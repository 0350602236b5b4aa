// All of Krait's C++ API.
#pragma once

#include <krait/conform.h>
#include <krait/device.h>
#include <krait/dtype.h>
#include <krait/export.h>
#include <krait/graph.h>
#include <krait/model.h>
#include <krait/ops.h>
#include <krait/profile.h>
#include <krait/quantize.h>
#include <krait/sampler.h>
#include <krait/session.h>
#include <krait/status.h>
#include <krait/tensor.h>
#include <krait/tokenizer.h>
#include <krait/verify.h>
#include <krait/version.h>
