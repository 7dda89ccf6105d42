"""Returned and cancelled orders are no purchases, however a shop writes them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest
from support.commands import Run

from genrec.data.dataset import Dataset
from genrec.data.ingest import EventOptions
from genrec.data.readers.rejects import Rejects
from genrec.data.statuses import classify
from genrec.errors import DataError

ROWS = 40


def orders(**columns: Sequence[object]) -> pa.Table:
    """Orders of 8 users and 11 items, with further columns whose cells are repeated."""
    start = dt.datetime(2023, 1, 1)
    base: dict[str, list[str]] = {
        "customer_id": [f"c{n % 8}" for n in range(ROWS)],
        "sku": [f"SKU-{n * 7 % 11}" for n in range(ROWS)],
        "product_name": [f"Mug {n * 7 % 11}" for n in range(ROWS)],
        "order_date": [(start + dt.timedelta(hours=31 * n)).isoformat() for n in range(ROWS)],
    }
    more = {
        name.replace("_0", " "): [str(cells[n % len(cells)]) for n in range(ROWS)]
        for name, cells in columns.items()
    }
    return pa.table({**base, **more})


def prepare(table: pa.Table, **options: object) -> Dataset:
    rejects = [Rejects("orders"), Rejects("orders")]
    given = EventOptions(**options)  # type: ignore[arg-type]
    return Dataset.from_tables(None, table, name="orders", options=given, rejects=rejects)


def behaviors(data: Dataset) -> dict[str, int]:
    return dict(Counter(data.info.behaviors))


CELLS = {
    "Status": ["Completed", "Refunded", "Cancelled", "Completed", "Void"],
    "Financial Status": ["paid", "refunded", "voided", "paid", "voided"],
    "Transaction Type": ["Invoice", "Credit Memo", "Void", "Cash Sale", "Void"],
    "Stage": ["Closed Won", "Returned", "Closed Lost", "Closed Won", "Closed Lost"],
    "orderState": ["complete", "CREDIT_NOTE", "order_canceled", "complete", "wc-cancelled"],
    "주문상태": ["배송완료", "반품완료", "주문취소", "배송완료", "주문취소"],
    "订单状态": ["交易成功", "退款成功", "交易关闭", "交易成功", "已取消"],
    "注文ステータス": ["発送済み", "返品", "キャンセル", "発送済み", "キャンセル済"],
    "Bestellstatus": ["versandt", "Zurückgesendet", "storniert", "versandt", "Storniert"],
    "Statut de la commande": ["livrée", "Remboursée", "Annulée", "livrée", "annulé"],
    "Estado del pedido": ["entregado", "Devuelto", "Cancelado", "entregado", "anulado"],
    "Situação": ["entregue", "Devolvido", "Cancelado", "entregue", "cancelado"],
    "Stato ordine": ["spedito", "Rimborsato", "Annullato", "spedito", "annullato"],
    "Orderstatus": ["verzonden", "Geretourneerd", "Geannuleerd", "verzonden", "geannuleerd"],
    "Status zamówienia": ["zrealizowane", "Zwrócone", "Anulowane", "zrealizowane", "anulowane"],
    "Статус заказа": ["Доставлен", "Возврат", "Отменён", "Доставлен", "отменен"],
    "Sipariş durumu": ["Teslim edildi", "İade", "İptal edildi", "Teslim edildi", "iptal"],
    "حالة الطلب": ["تم التسليم", "مرتجع", "ملغي", "تم التسليم", "تم الإلغاء"],
    "Ordrestatus": ["Levert", "Returnert", "Kansellert", "Levert", "kansellert"],
    "Stav objednávky": ["doručeno", "Vráceno", "Zrušeno", "doručeno", "zrušeno"],
    "Rendelés állapota státusz": ["teljesítve", "Visszaküldve", "Törölve", "teljesítve", "törölt"],
    "Tilauksen tila status": ["toimitettu", "Palautettu", "Peruttu", "toimitettu", "peruutettu"],
    "สถานะ": ["จัดส่งแล้ว", "คืนสินค้า", "ยกเลิก", "จัดส่งแล้ว", "ยกเลิกแล้ว"],
}


@pytest.mark.parametrize("name", CELLS)
def test_a_status_separates_purchases_returns_and_cancelled_orders(name: str) -> None:
    data = prepare(orders().append_column(name, [CELLS[name] * 8]))
    assert behaviors(data) == {"buy": 16, "return": 8}
    assert data.info.rejected == {"orders: cancelled order": 16}
    used = {u["column"]: u["use"] for u in data.info.uses}
    assert used[name] == "cancelled or returned orders"


@pytest.mark.parametrize("name", CELLS)
def test_a_column_of_statuses_may_be_used_as_behavior(name: str) -> None:
    data = prepare(orders().append_column(name, [CELLS[name] * 8]), columns={"behavior": name})
    assert behaviors(data)["return"] == 8
    assert data.info.rejected == {"orders: cancelled order": 16}


@pytest.mark.parametrize(
    ("name", "cells", "kinds", "rejected"),
    [
        ("is_returned", ["0", "1", "0", "0"], {"buy": 30, "return": 10}, 0),
        ("isRefunded", ["false", "true", "false", "false"], {"buy": 30, "return": 10}, 0),
        ("Retourniert", ["nein", "ja", "nein", ""], {"buy": 30, "return": 10}, 0),
        ("是否退货", ["否", "是", "否", "否"], {"buy": 30, "return": 10}, 0),
        ("취소여부", ["N", "Y", "N", "N"], {"buy": 30}, 10),
        ("cancelled", ["", "x", "", ""], {"buy": 30}, 10),
        ("Cancelled at", ["", "2023-02-03 10:00", "", ""], {"buy": 30}, 10),
        ("Storniert am", ["", "03.02.2023", "", ""], {"buy": 30}, 10),
        ("取消时间", ["", "2023-02-03 10:00", "0000-00-00", ""], {"buy": 30}, 10),
        ("refunded_at", ["", "2023-02-03T10:00:00Z", "", ""], {"buy": 30, "return": 10}, 0),
        ("amount", ["12.00", "-9.50", "9.50", "8"], {"buy": 30, "return": 10}, 0),
        ("Betrag", ["12,00 €", "-9,50 €", "9,50 €", "8,10 €"], {"buy": 30, "return": 10}, 0),
        ("Net Sales", ["-$1.00", "($2.00)", "$9.50", "-$3.00"], {"buy": 30, "return": 10}, 0),
    ],
)
def test_flags_dates_and_signs(
    name: str, cells: list[str], kinds: dict[str, int], rejected: int
) -> None:
    data = prepare(orders().append_column(name, [cells * (ROWS // len(cells))]))
    assert behaviors(data) == kinds
    assert sum(data.info.rejected.values()) == rejected


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("Status", ["Active", "Cancelled", "Active", "Active"]),  # memberships
        ("Account status", ["open", "cancelled", "open", "open"]),
        ("Status", ["not returned", "non-refundable", "no refund", "paid"]),
        ("Refund status", ["refund rejected", "partially refunded", "none", "none"]),
        ("returned_at", ["2023-02-03", "2023-02-04", "", "2023-02-05"]),  # loans
        ("Returned", ["yes", "yes", "no", "yes"]),
        ("State", ["CA", "NY", "TX", "WA"]),
        ("cancellation_policy", ["strict", "flexible", "none", "strict"]),
        ("return_reason", ["", "too small", "", ""]),
        ("Download status", ["ok", "failed", "ok", "ok"]),
        ("amount", ["12", "-9", "8", "-8"]),
        ("discount_amount", ["0", "-1", "0", "0"]),
        ("Price", ["3", "-1", "4", "5"]),
    ],
)
def test_columns_that_say_nothing_about_orders(name: str, cells: list[str]) -> None:
    data = prepare(orders().append_column(name, [cells * 10]))
    assert list(behaviors(data)) in (["buy"], ["interact"])
    assert data.info.events == ROWS


def test_a_status_that_follows_the_item_describes_the_item() -> None:
    by_item = ["Cancelled" if n * 7 % 11 < 3 else "Paid" for n in range(ROWS)]
    data = prepare(orders().append_column("Status", [by_item]))
    assert data.info.events == ROWS
    assert any("--status Status" in note for note in data.info.notes)


def test_a_quantity_may_be_returned_in_part() -> None:
    table = orders(Quantity=["2", "3", "1", "2"], Returned_0Quantity=["0", "1", "1", "5"])
    data = prepare(table)
    assert behaviors(data) == {"buy": 20, "return": 20}
    bought = data.interactions.columns.value[data.interactions.columns.behavior == 0]
    assert sorted(set(bought.tolist())) in ([2.0], [1.0, 2.0, 3.0])
    assert any("was reduced by a smaller one in 'Returned Quantity'" in n for n in data.info.notes)


def test_the_first_line_of_an_order_has_the_status_of_all_lines() -> None:
    table = orders(Order_0ID=["A"], Status=["paid", "", "refunded", "", "voided", ""])
    pairs = pa.array([f"#{n // 2}" for n in range(ROWS)])
    table = table.set_column(table.column_names.index("Order ID"), "Order ID", pairs)
    data = prepare(table)
    assert behaviors(data) == {"buy": 14, "return": 14}
    assert sum(data.info.rejected.values()) == 12


def test_the_date_of_cancellation_is_on_the_first_line_of_an_order() -> None:
    table = orders(Order_0ID=["A"], Total=["9.50", ""], Cancelled_0at=["", "", "2023-05-01", ""])
    pairs = pa.array([f"#{n // 2}" for n in range(ROWS)])
    table = table.set_column(table.column_names.index("Order ID"), "Order ID", pairs)
    assert prepare(table).info.events == ROWS / 2


def test_a_line_may_be_cancelled_alone() -> None:
    table = orders(Order_0ID=["A"], Cancelled_0at=["2023-05-01", "", "", ""])
    pairs = pa.array([f"#{n // 2}" for n in range(ROWS)])
    table = table.set_column(table.column_names.index("Order ID"), "Order ID", pairs)
    assert prepare(table).info.events == 0.75 * ROWS


def test_the_user_may_choose_the_status_or_none() -> None:
    table = orders(Status=["paid", "refunded"], Outcome=["sent", "sent", "sent", "was void"])
    assert behaviors(prepare(table)) == {"buy": 20, "return": 10}
    assert behaviors(prepare(table, status="none")) == {"buy": 40}
    chosen = prepare(table, status="Outcome")
    assert behaviors(chosen) == {"buy": 30}
    assert chosen.info.columns["status"] == "Outcome"
    with pytest.raises(DataError, match="No cell of the column 'sku' says"):
        prepare(table, status="sku")
    with pytest.raises(DataError, match=r"no column 'Nope' \(given as status=Nope\)"):
        prepare(table, status="Nope")


def test_a_column_with_another_name_is_reported() -> None:
    table = orders(Remark=["fine", "refunded", "fine", "cancelled"])
    data = prepare(table)
    assert data.info.events == ROWS
    expected = "the column 'Remark' is 'refunded' or 'cancelled' in 50% of the rows"
    assert any(expected in note and "--status Remark" in note for note in data.info.notes)
    assert behaviors(prepare(table, status="Remark")) == {"buy": 20, "return": 10}


def test_a_refunded_amount_is_reported_unless_a_status_says_the_same() -> None:
    amounts = ["0.00", "12.50", "0.00", "0.00"]
    data = prepare(orders(Refunded_0Amount=amounts))
    assert any("'Refunded Amount' is more than 0 in 25%" in note for note in data.info.notes)
    data = prepare(orders(Refunded_0Amount=amounts, Status=["paid", "refunded", "paid", "paid"]))
    assert not any("Refunded Amount" in note for note in data.info.notes)


def test_a_row_that_is_both_counts_as_cancelled() -> None:
    table = orders(
        Status=["paid", "cancelled", "refunded", "paid"], is_returned=["0", "1", "0", "0"]
    )
    data = prepare(table)
    assert behaviors(data) == {"buy": 20, "return": 10}
    assert any("10 rows as 'return'" in note for note in data.info.notes)
    assert sum(data.info.rejected.values()) == 10


def test_only_cancelled_orders_are_an_error_that_names_the_option() -> None:
    with pytest.raises(DataError, match="--status none"):
        prepare(orders(Status=["cancelled", "void"]))


@pytest.mark.parametrize("word", ["Return", "RETURN", "Refund", "Retoure", "返品", "Devolución"])
def test_behaviors_are_returns_in_any_case(word: str) -> None:
    data = prepare(orders(event_type=["Sale", word, "Sale", "Exchange"]))
    assert behaviors(data) == {"Sale": 20, "return": 10, "Exchange": 10}


@pytest.mark.parametrize("event", ["view_return_policy", "cancel_subscription", "refund_faq_view"])
def test_behaviors_that_only_mention_returns(event: str) -> None:
    data = prepare(orders(event_type=["purchase", event]))
    assert behaviors(data)[event] == 20


@pytest.mark.parametrize("status", ["取消退款", "退款关闭", "환불불가", "返品不可", "未退款", ""])
def test_a_return_that_did_not_happen(status: str) -> None:
    assert classify(status) == ""


def test_the_command_lists_every_column(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("orders")
    table = orders(Status=["paid", "Void"], Brand=["Acme"], Gap=[""], Zone=["a", "b", "c"])
    lines = [",".join(table.column_names)]
    lines += [",".join(row.values()) for row in table.to_pylist()]
    path = folder / "orders.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    code, printed, errors = run("prepare", path, "--dry-run")
    assert code == 0, errors
    for line in (
        "customer_id\tuser_id\tc0",
        "Status\tcancelled or returned orders\tpaid",
        "Zone\tnot used, but kept with the events\ta",
        "Gap\tnot used, but kept with the events\t-",
    ):
        assert line in printed
    code, printed, errors = run("prepare", path, "--out", folder / "out")
    assert code == 0, errors
    assert (
        "Columns that are not used, but kept with the events: 'Brand' (such as 'Acme')" in printed
    )
    assert "cancelled or returned: 'Status' (such as 'paid')" in printed
