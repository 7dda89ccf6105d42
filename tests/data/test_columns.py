"""Columns are recognized by the names that shops, media sites and research data give them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from genrec import Dataset
from genrec.data.column_names import RoleNames, fold, known, names_of
from genrec.data.columns import recognize_events, recognize_items
from genrec.data.ingest import EventOptions
from genrec.errors import DataError

CELLS = {"behavior": "view", "rating": "4", "value": "2", "timestamp": "2019-03-01"}
EVENTS = {
    "UCI Online Retail": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        {"unit": "InvoiceNo", "item_id": "StockCode", "title": "Description", "value": "Quantity",
         "timestamp": "InvoiceDate", "user_id": "CustomerID"},
        "buy",
    ),
    "UCI Online Retail II": (
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
        {"unit": "Invoice", "item_id": "StockCode", "title": "Description", "value": "Quantity",
         "timestamp": "InvoiceDate", "user_id": "Customer ID"},
        "buy",
    ),
    "MovieLens": (
        "userId,movieId,rating,timestamp",
        {"user_id": "userId", "item_id": "movieId"},
        "interact",
    ),
    "Amazon 2014 and 2018": (
        "overall,verified,reviewTime,reviewerID,asin,reviewerName,reviewText,summary,unixReviewTime",
        {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "text": "summary",
         "timestamp": "unixReviewTime"},
        "interact",
    ),
    "Amazon 2023": (
        "rating,title,text,images,asin,parent_asin,user_id,timestamp,helpful_vote,verified_purchase",
        {"item_id": "parent_asin", "text": "title"},
        "interact",
    ),
    "Goodreads": (
        "user_id,book_id,review_id,rating,review_text,date_added,date_updated,read_at,started_at",
        {"item_id": "book_id", "timestamp": "date_added"},
        "interact",
    ),
    "Last.fm 1K": (
        "userid,timestamp,musicbrainz-artist-id,artist-name,musicbrainz-track-id,track-name",
        {"user_id": "userid", "item_id": "musicbrainz-track-id", "title": "track-name"},
        "listen",
    ),
    "Last.fm HetRec": (
        "userID,artistID,weight,timestamp",
        {"user_id": "userID", "item_id": "artistID"},
        "listen",
    ),
    "Steam": (
        "username,product_id,date,hours,text",
        {"user_id": "username", "item_id": "product_id", "timestamp": "date", "value": "hours"},
        "interact",
    ),
    "H&M": (
        "t_dat,customer_id,article_id,price,sales_channel_id",
        {"user_id": "customer_id", "item_id": "article_id", "timestamp": "t_dat"},
        "buy",
    ),
    "RetailRocket": (
        "timestamp,visitorid,event,itemid,transactionid",
        {"user_id": "visitorid", "item_id": "itemid", "behavior": "event", "unit": "transactionid"},
        "buy",
    ),
    "Yoochoose": (
        "Session ID,Timestamp,Item ID,Category",
        {"user_id": "Session ID", "timestamp": "Timestamp", "item_id": "Item ID"},
        "interact",
    ),
    "MIND": (
        "Impression ID,User ID,Time,News ID,Title",
        {"user_id": "User ID", "timestamp": "Time", "item_id": "News ID", "title": "Title"},
        "interact",
    ),
    "Google Analytics 4": (
        "event_date,event_timestamp,event_name,user_pseudo_id,ga_session_id,item_id,item_name",
        {"timestamp": "event_timestamp", "behavior": "event_name", "user_id": "user_pseudo_id",
         "title": "item_name", "unit": "ga_session_id"},
        "interact",
    ),
    "Shopify": (
        "Name,Email,Financial Status,Paid at,Created at,Lineitem quantity,Lineitem name,"
        "Lineitem price,Lineitem sku,Billing Name,Vendor,Id",
        {"unit": "Name", "user_id": "Email", "timestamp": "Created at", "title": "Lineitem name",
         "item_id": "Lineitem sku", "value": "Lineitem quantity"},
        "buy",
    ),
    "REES46": (
        "event_time,event_type,product_id,category_code,brand,price,user_id,user_session",
        {"timestamp": "event_time", "behavior": "event_type", "item_id": "product_id",
         "unit": "user_session"},
        "buy",
    ),
    "dunnhumby": (
        "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID",
        {"user_id": "household_key", "unit": "BASKET_ID", "timestamp": "DAY",
         "item_id": "PRODUCT_ID", "value": "QUANTITY"},
        "buy",
    ),
    "RecBole": (
        "user_id:token,item_id:token,rating:float,timestamp:float",
        {"user_id": "user_id:token", "item_id": "item_id:token", "rating": "rating:float",
         "timestamp": "timestamp:float"},
        "interact",
    ),
    "German": (
        "Bestellnummer;Kunden-Nr.;Artikelnummer;Artikelbezeichnung;Menge;Einzelpreis;Bestelldatum",
        {"unit": "Bestellnummer", "user_id": "Kunden-Nr.", "item_id": "Artikelnummer",
         "title": "Artikelbezeichnung", "value": "Menge", "timestamp": "Bestelldatum"},
        "buy",
    ),
    "Chinese": (
        "订单编号,用户ID,商品编号,商品名称,数量,价格,下单时间,行为类型",
        {"unit": "订单编号", "user_id": "用户ID", "item_id": "商品编号", "title": "商品名称",
         "value": "数量", "timestamp": "下单时间", "behavior": "行为类型"},
        "buy",
    ),
    "a till": (
        "RECEIPT_NO,CLIENT,SKU,PRODUCT NAME,QTY,DATETIME",
        {"unit": "RECEIPT_NO", "user_id": "CLIENT", "item_id": "SKU", "title": "PRODUCT NAME",
         "value": "QTY", "timestamp": "DATETIME"},
        "buy",
    ),
    "a till with short names": (
        "Sale No,Sold On,Cust,Prod Code,Prod Desc,Pcs,Amt",
        {"unit": "Sale No", "timestamp": "Sold On", "user_id": "Cust", "item_id": "Prod Code",
         "title": "Prod Desc", "value": "Pcs"},
        "buy",
    ),
    "SAP": (
        "Verkaufsbeleg;Position;Auftraggeber;Name 1;Material;Bezeichnung;Auftragsmenge;Belegdatum",
        {"unit": "Verkaufsbeleg", "user_id": "Auftraggeber", "item_id": "Material",
         "title": "Bezeichnung", "value": "Auftragsmenge", "timestamp": "Belegdatum"},
        "buy",
    ),
    "SAP with technical names": (
        "VBELN,POSNR,KUNNR,MATNR,ARKTX,KWMENG,AUDAT",
        {"unit": "VBELN", "user_id": "KUNNR", "item_id": "MATNR", "title": "ARKTX",
         "value": "KWMENG", "timestamp": "AUDAT"},
        "buy",
    ),
    "Koha": (
        "borrowernumber,biblionumber,title,issuedate,date_due",
        {"user_id": "borrowernumber", "item_id": "biblionumber", "timestamp": "issuedate"},
        "interact",
    ),
    "a Japanese till": (
        "レシート番号,取引日時,会員番号,商品コード,商品名,数量",
        {"unit": "レシート番号", "timestamp": "取引日時", "user_id": "会員番号", "item_id": "商品コード",
         "title": "商品名", "value": "数量"},
        "buy",
    ),
    "WooCommerce": (
        "Order ID,Order Date,Customer Email,Product ID,Product Name,Quantity,Item Price",
        {"unit": "Order ID", "timestamp": "Order Date", "user_id": "Customer Email",
         "item_id": "Product ID", "title": "Product Name", "value": "Quantity"},
        "buy",
    ),
}  # fmt: skip
ITEMS = {
    "MovieLens": ("movieId,title,genres", {"item_id": "movieId"}),
    "Amazon 2018": ("category,title,brand,asin,price", {"item_id": "asin"}),
    "Amazon 2023": ("main_category,title,store,parent_asin", {"item_id": "parent_asin"}),
    "Goodreads": ("isbn,text_reviews_count,book_id,title,publisher", {"item_id": "book_id"}),
    "Last.fm": ("id,name,url,pictureURL", {"item_id": "id", "title": "name"}),
    "Steam": ("app_name,id,genres,price", {"item_id": "id"}),
    "H&M": (
        "article_id,product_code,prod_name,product_type_name,detail_desc",
        {"item_id": "article_id", "title": "prod_name"},
    ),
    "REES46": ("product_id,name", {"item_id": "product_id", "title": "name"}),
    "MIND": ("News ID,Category,SubCategory,Title,Abstract", {"item_id": "News ID"}),
}


def table(header: str, rows: int = 3) -> pa.Table:
    names = header.split(";" if ";" in header else ",")
    cells = {"event": "view", "eventtype": "view", "eventname": "view", "行为类型": "购买"}
    return pa.table({n: [cells.get(fold(n), "7")] * rows for n in names})


@pytest.mark.parametrize("source", EVENTS)
@pytest.mark.parametrize("change", [str, str.upper, str.lower, lambda s: s.replace("_", " ")])
def test_events_of_a_known_source(source: str, change: object) -> None:
    header, expected, behavior = EVENTS[source]
    assert callable(change)
    own = {"user_id", "item_id", "timestamp", "rating", "title", "text"}
    names = {n: change(n) if n not in own else n for n in header.replace(";", ",").split(",")}
    written = table(",".join(names.values()))
    found = recognize_events(written, {}, "f", with_titles=False)
    wanted = {ours: names[theirs] for ours, theirs in expected.items()}
    assert found.names == {o: t for o, t in wanted.items() if o != t or o == "unit"}
    assert found.behavior == behavior
    for ours, theirs in found.names.items():
        assert (theirs if ours == "unit" else ours) in found.table.column_names
    assert found.table.num_rows == written.num_rows


IN_OTHER_WORDS = [  # user, item, title, time, quantity, basket
    "Código cliente;Código artículo;Descripción;Fecha pedido;Cantidad;Nº pedido",
    "Client;Référence produit;Désignation;Date de commande;Quantité;Référence commande",
    "Codice cliente;Codice articolo;Descrizione articolo;Data ordine;Quantità;Numero ordine",
    "Código do Cliente;Código do Produto;Nome do Produto;Data do Pedido;Quantidade;Nº do Pedido",
    "Klantnummer;Artikelnummer;Omschrijving;Besteldatum;Aantal;Ordernummer",
    "Klient;Kod produktu;Nazwa produktu;Data zamówienia;Ilość;Nr zamówienia",
    "Kundnr;Artikelnr;Benämning;Datum;Antal;Ordernr",
    "Kd.-Nr.;Art.-Nr.;Artikel;Bestelldatum;Menge;Bestell-Nr.",
    "Kunde;Material;Materialkurztext;BelDatum;Menge;Beleg",
    "Клиент;Артикул;Наименование товара;Дата заказа;Количество;Номер заказа",
    "회원ID;상품코드;상품명;주문일시;수량;주문번호",
    "会員ID;商品管理番号;商品名;注文日時;個数;注文番号",
    "會員編號;商品編號;商品名稱;訂購日期;數量;訂單編號",
    "Email (Billing);SKU;Item Name;Order Date;Quantity (- Refund);Order Number",
    "buyer-email;sku;product-name;purchase-date;quantity;amazon-order-id",
    "Buyer Username;Item Number;Item Title;Sale Date;Quantity;Order Number",
    "Client No;Product code;Product;Date of sale;Pcs;Receipt No",
    "customer_email;product_id;name;created_at;qty_ordered;increment_id",
]


@pytest.mark.parametrize("header", IN_OTHER_WORDS)
def test_names_in_several_languages_and_orders_of_words(header: str) -> None:
    columns = header.split(";")
    cells = [["7", "8"]] * 2 + [["red mug", "tea pot"]] + [["7", "8"]] * 3
    written = pa.table(dict(zip(columns, cells, strict=True)))
    found = recognize_events(written, {}, "f")
    roles = ["user_id", "item_id", "title", "timestamp", "value", "unit"]
    assert found.names == dict(zip(roles, columns, strict=True))
    assert found.behavior == "buy"
    assert found.counted


def test_no_name_is_known_for_two_roles() -> None:
    counts = Counter(name for role in known()["roles"] for name in names_of(role))
    assert [name for name, count in counts.items() if count > 1] == []


GUESTS = {
    "customer_id": ["1", "", "2", ""],
    "customer_email": ["a@x", "b@x", "c@x", "d@x"],
    "sku": ["7", "8", "7", "8"],
    "name": ["Mug", "Pot", "Mug", "Pot"],
    "created_at": ["2019-03-01"] * 4,
}


@pytest.mark.parametrize(
    ("user", "nobody", "found"),
    [
        ("customer_id", "", "customer_email"),
        ("customer_id", "0", "customer_email"),
        ("user_id", "", "customer_email"),
        ("customer_id", "9", "customer_id"),
    ],
)
def test_the_column_that_names_the_most_users_is_used(user: str, nobody: str, found: str) -> None:
    cells = {**GUESTS, user: [u or nobody for u in GUESTS["customer_id"]]}
    if user != "customer_id":
        del cells["customer_id"]
    read = recognize_events(pa.table(cells), {}, "f")
    assert read.names["user_id"] == found
    said = f"users are identified by 'customer_email', since {user!r} identifies no user in 2 rows"
    assert (said in read.notes) == (found == "customer_email")
    assert recognize_events(pa.table(cells), {"user_id": user}, "f").names["user_id"] == user
    few = cells | {"customer_email": ["a@x", "a@x", "a@x", "a@x"]}
    few[user] = ["1", "", "2", ""]
    assert recognize_events(pa.table(few), {}, "f").names.get("user_id", user) == user


LINES = {
    "customer": ["u", "u", "v", "w", "w"],
    "sku": ["A", "B", "A", "B", "A"],
    "product_id": ["1", "2", "1", "2", "1"],
    "product name": ["Mug", "Pot", "Mug", "Pot", "Mug"],
    "date": ["2019-03-01"] * 5,
}


@pytest.mark.parametrize(
    ("other", "cells", "item"),
    [
        ("item_id", ["1", "2", "3", "4", "5"], "product_id"),  # numbers of the lines
        ("Item #", ["1", "2", "1", "1", "2"], "product_id"),  # numbers within an order
        ("item no", ["9", "8", "9", "8", "9"], "item no"),
        ("item_id", ["9", "8", "9", "8", "9"], "item_id"),
    ],
)
def test_the_ids_that_fit_the_titles_are_used(other: str, cells: list[str], item: str) -> None:
    read = recognize_events(pa.table({other: cells} | LINES), {}, "f")
    assert read.names.get("item_id", "item_id") == item
    said = "items are identified by 'product_id', since 'item_id' is different in every row"
    assert (said in read.notes) == (other == "item_id" and item != "item_id")
    given = recognize_events(pa.table({other: cells} | LINES), {"item_id": other}, "f")
    assert given.names["item_id"] == other


def test_a_column_of_people_is_no_title() -> None:
    rows = 40
    cells = {
        "name": [f"Ann {n % 13}" for n in range(rows)],
        "customer id": [str(n % 13) for n in range(rows)],
        "sku": [f"S{n % 3}" for n in range(rows)],
        "product": [["Mug", "Pot", "Tin"][n % 3] for n in range(rows)],
        "date": ["2019-03-01"] * rows,
    }
    assert recognize_events(pa.table(cells), {}, "f").names["title"] == "product"
    del cells["product"]
    assert "title" not in recognize_events(pa.table(cells), {}, "f").names
    assert recognize_events(pa.table(cells), {"title": "name"}, "f").names["title"] == "name"


def test_events_use_the_ids_that_the_items_have() -> None:
    events = {"customer": ["u"], "product_id": ["1"], "sku": ["A"], "date": ["2019-03-01"]}
    for shared in ("product_id", "sku"):
        items = pa.table({shared: events[shared], "name": ["Mug"]})
        read = recognize_events(pa.table(events), {}, "f", with_titles=False, items=items)
        assert read.names["item_id"] == shared


@pytest.mark.parametrize("basket", ["Transaction", "receipt no", "session_id"])
@pytest.mark.parametrize("other", [None, "Contact"])
def test_baskets_stand_for_users_if_no_other_column_could(basket: str, other: str | None) -> None:
    rows = 30
    cells = {
        basket: [str(n // 2) for n in range(rows)],
        "Item": [f"Bread {'abc'[n % 3]}" for n in range(rows)],
        "Date": ["2019-03-01"] * rows,
        "Time": ["09:58:11"] * rows,
        "daypart": ["morning"] * rows,
        "Total": ["3.50"] * rows,
    }
    if other:
        cells[other] = [f"K{n}" for n in range(rows)]
    read = recognize_events(pa.table(cells), {}, "f")
    if other and basket != "session_id":
        assert "user_id" not in read.names
        return
    assert read.names["user_id"] == basket
    assert f"no column identifies users, so each {basket!r} is treated as a user" in read.notes
    assert read.behavior == "buy"


@pytest.mark.parametrize("source", ITEMS)
def test_items_of_a_known_source(source: str) -> None:
    header, expected = ITEMS[source]
    found = recognize_items(table(header), {}, "f")
    title = {} if "title" in header.split(",") else {"title": "Title"}
    title = {} if "title" in expected or "Title" not in header else title
    title = {"title": "app_name"} if source == "Steam" else title
    assert found.names == expected | title


def test_missing_columns_are_named_together_with_the_names_in_the_file() -> None:
    events = pa.table({"who": ["u"], "song": ["Yesterday"], "Qty": ["1"]})
    with pytest.raises(DataError) as caught:
        Dataset.from_tables(None, events, name="shop")
    assert "as user_id (the user) or timestamp (the time)" in str(caught.value)
    assert "Found the columns: who, song, Qty." in str(caught.value)
    assert "--column user_id=COLUMN --column timestamp=COLUMN" in str(caught.value)


def test_own_names_and_given_names_come_first() -> None:
    events = pa.table(
        {"customer": ["c"], "user_id": ["u"], "item": ["i"], "sku": ["s"], "date": ["1"]}
    )
    found = recognize_events(events, {"item_id": "item"}, "f")
    assert found.names["item_id"] == "item"
    assert "user_id" not in found.names
    assert found.table["user_id"].to_pylist() == ["u"]
    assert found.table["customer"].to_pylist() == ["c"]


def test_a_column_in_the_way_of_a_mapped_one_is_kept_under_another_name() -> None:
    events = pa.table({"user_id": ["u"], "item_id": ["old"], "code": ["new"], "timestamp": [1]})
    found = recognize_events(events, {"item_id": "code"}, "f")
    assert found.table["item_id"].to_pylist() == ["new"]
    assert found.table["item_id_given"].to_pylist() == ["old"]


def test_a_mapped_column_that_is_missing_is_an_error_that_lists_the_columns() -> None:
    with pytest.raises(DataError, match=r"no column 'nope' .*: user_id, b"):
        recognize_events(pa.table({"user_id": ["u"], "b": [1]}), {"item_id": "nope"}, "f")


def test_dates_and_times_of_day_are_joined() -> None:
    events = pa.table(
        {"Date": ["2019-03-01", "2019-03-02"], "Time": ["09:05", "10:15:30"], "Customer": ["a", "b"],
         "Item": ["Tea", "Cake"]}
    )  # fmt: skip
    found = recognize_events(events, {}, "f")
    assert found.table["timestamp"].to_pylist() == ["2019-03-01 09:05", "2019-03-02 10:15:30"]
    assert "Time" not in found.table.column_names


def test_a_column_of_names_is_both_id_and_title() -> None:
    events = pa.table(
        {"customer": ["a", "b"], "product": ["Red mug", "Tea pot"], "date": ["1", "2"]}
    )
    found = recognize_events(events, {}, "f")
    assert found.table["title"].to_pylist() == found.table["item_id"].to_pylist()
    codes = pa.table({"customer": ["a", "b"], "product": ["12345", "9876X"], "date": ["1", "2"]})
    assert "title" not in recognize_events(codes, {}, "f").table.column_names


def test_titles_alone_identify_items() -> None:
    events = pa.table({"customer": ["a"], "product name": ["Red mug"], "date": ["1"]})
    found = recognize_events(events, {}, "f")
    assert found.table["item_id"].to_pylist() == ["Red mug"]
    assert any("identified by their titles" in note for note in found.notes)


@pytest.mark.parametrize(("cells", "taken"), [(["view", "cart"], True), (["Toys", "Books"], False)])
def test_a_column_called_type_holds_behaviors_only_if_its_cells_do(
    cells: list[str], taken: bool
) -> None:
    events = pa.table({"user": ["a", "b"], "sku": ["1", "2"], "type": cells, "date": ["1", "2"]})
    assert ("behavior" in recognize_events(events, {}, "f").names) == taken


def test_items_are_joined_by_the_column_that_shares_ids_with_the_events() -> None:
    events = recognize_events(
        pa.table({"customer": ["c"] * 2, "article": ["A1", "A2"], "date": ["1", "2"]}), {}, "f",
        with_titles=False,
    )  # fmt: skip
    items = pa.table({"product_id": ["1", "2"], "sku": ["A1", "A2"], "name": ["Mug", "Pot"]})
    assert recognize_items(items, {}, "g", events).names["item_id"] == "sku"


def test_role_names_hold_what_is_mapped_or_recognized() -> None:
    names = RoleNames(("user_id", "item_id"), {"item_id": "thing"})
    assert "thing" in names
    assert "Customer ID" in names
    assert "product_id" not in names
    assert "price" not in names


@pytest.mark.parametrize(
    "options", [{}, {"time_unit": "position"}, {"columns": {"position": "position"}}]
)
def test_a_position_beside_dates_is_that_of_a_line_unless_asked_for(
    options: dict[str, Any],
) -> None:
    rows = pa.table(
        {"customer": ["u", "u", "v"], "sku": ["a1", "b2", "a1"], "position": ["2", "1", "1"],
         "product name": ["Mug", "Pot", "Mug"], "order date": ["2024-03-01", "2024-03-02", "2024-03-02"]}
    )  # fmt: skip
    data = Dataset.from_tables(None, rows, name="f", options=EventOptions(**options))
    first, second = data.interactions.history("u").interactions
    assert (first.item_id, second.item_id) == (("b2", "a1") if options else ("a1", "b2"))
    assert data.info.time_unit == ("position" if options else "s")
